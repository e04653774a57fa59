"""Histograms and the thresholds found in them, against definitions computed the slow way."""

from __future__ import annotations

import numpy as np
import pytest

from agileir_export.calib.histogram import BINS, EDGES, LEVELS, histogram, threshold
from agileir_export.errors import InputError


def error_of(values: np.ndarray, clip: float) -> float:
    """Mean squared error of symmetric int8 at a threshold."""
    step = clip / LEVELS
    rounded = np.clip(np.rint(values / step), -LEVELS, LEVELS) * step
    return float(np.mean((values - rounded) ** 2))


@pytest.mark.parametrize("values", [[0.0], [1.0, -1.0], [1e-30, 3e38, -0.0, 1e-45], [0.1, 0.2, 0.30001]])
def test_every_value_lies_in_its_bin(values: list[float]) -> None:
    array = np.array(values, np.float32)
    counts = histogram(array)
    assert counts.sum() == len(values) and counts.shape == (BINS,)
    for value in np.abs(array).astype(np.float64):
        index = int(np.searchsorted(EDGES, value, side="right")) - 1
        assert counts[index] > 0
        assert EDGES[index] <= value < EDGES[index + 1]


def test_bins_are_narrow_at_every_magnitude() -> None:
    normal = EDGES[(EDGES > 1e-37) & (EDGES < 1e38)]
    assert np.all(np.diff(normal) / normal[:-1] <= 1 / 64)


def test_histograms_add_up_in_any_order() -> None:
    parts = [np.random.default_rng(i).normal(0, 10.0**i, 1000).astype(np.float32) for i in range(4)]
    forward = sum(histogram(part) for part in parts)
    assert np.array_equal(forward, sum(histogram(part) for part in reversed(parts)))
    assert np.array_equal(forward, histogram(np.concatenate(parts)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="1 values of an activation are NaN or infinite"):
        histogram(np.array([1, bad, 2], np.float32))


def test_minmax_and_full_percentile_clip_nothing() -> None:
    values = np.array([0.5, -3.25, 1], np.float32)
    for method in ("minmax", "percentile"):
        assert threshold(histogram(values), 3.25, method, 100.0) == 3.25


def test_a_percentile_leaves_out_the_rest() -> None:
    values = np.concatenate([np.full(990, 1.0), np.full(10, 50.0)]).astype(np.float32)
    counts = histogram(values)
    assert threshold(counts, 50.0, "percentile", 99.0) == pytest.approx(1.0, rel=1 / 32)
    assert threshold(counts, 50.0, "percentile", 99.5) == 50.0


@pytest.mark.parametrize("tails", [1.0, 3.0, 30.0])
def test_least_squares_is_as_good_as_trying_all_thresholds(tails: float) -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 100_000), random.normal(0, tails, 200)]).astype(np.float32)
    largest = float(np.abs(values).max())
    found = error_of(values, threshold(histogram(values), largest, "mse", 0))
    tried = min(error_of(values, clip) for clip in np.linspace(0.05, 1, 400) * largest)
    assert found <= 1.01 * tried


def test_least_squares_beats_no_clipping_where_outliers_are_few() -> None:
    values = np.random.default_rng(1).normal(0, 1, 200_000).astype(np.float32)
    values[0] = 60
    clip = threshold(histogram(values), 60.0, "mse", 0)
    assert error_of(values, clip) < 0.6 * error_of(values, 60.0)


def test_entropy_clips_outliers_and_keeps_the_bulk() -> None:
    values = np.random.default_rng(2).normal(0, 1, 200_000).astype(np.float32)
    values[:3] = 100
    assert 2.0 < threshold(histogram(values), 100.0, "entropy", 0) < 20.0


@pytest.mark.parametrize("method", ["mse", "minmax", "entropy", "percentile"])
def test_a_dead_or_constant_tensor_gets_a_positive_threshold(method: str) -> None:
    zeros = np.zeros(100, np.float32)
    assert threshold(histogram(zeros), 0.0, method, 99.9) == 1.0
    constant = np.full(100, 0.75, np.float32)
    assert 0 < threshold(histogram(constant), 0.75, method, 99.9) <= 0.75


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="no calibration method"):
        threshold(histogram(np.ones(3, np.float32)), 1.0, "guess", 99.0)
