"""The task rung: degradation, the metric of the task, and the arithmetic of baseline, reference and candidate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.images.files import Image, write_image
from agileir_export.images.resizing import resize_bicubic
from agileir_export.models import ModelSpec
from agileir_export.parity import psnr, psnr_y
from agileir_export.parity.task import TASK_LOSS, task_rung
from agileir_export.parity.truths import degrade

from ..small_samples import use_samples

SR = ModelSpec("swinir", "custom", "super-resolution", 2, 3, window_size=4, pad_multiple=4)
DENOISING = dataclasses.replace(SR, task="denoising", scale=1, noise_level=25.0)


class Constant:
    """A runner that answers with a constant, of the right size."""

    def __init__(self, spec: ModelSpec, value: float) -> None:
        self.spec, self.value, self.given = spec, value, []

    def run(self, images: Any) -> Any:
        self.given.append(images)
        batch, channels, height, width = images.shape
        size = (batch, channels, height * self.spec.scale, width * self.spec.scale)
        return np.full(size, self.value, np.float32)

    def describe(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def grey_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """One packaged picture of 9 x 13 pixels, all of them 128/255."""
    pixels = np.full((3, 9, 13), 128 / 255, np.float32)
    write_image(tmp_path / "grey.png", Image(pixels))
    use_samples(monkeypatch, [("grey", tmp_path / "grey.png")])
    return pixels


def luma_psnr(steps: float) -> float:
    """dB for a luma that is off by so many of 255 steps everywhere."""
    return float(20 * np.log10(255 / steps))


def test_a_hand_case_of_super_resolution(grey_picture: np.ndarray) -> None:
    """Grey of v has luma 16 + 219 v; 255 is the peak. 138 and 148 of 255 are 10 and 20 grey steps off."""
    reference, candidate = Constant(SR, 138 / 255), Constant(SR, 148 / 255)
    rung = task_rung(reference, candidate, loss=7)
    (measure,) = rung.measures
    assert measure.image == "grey"
    assert measure.baseline == np.inf  # bicubic keeps a flat picture
    assert measure.reference == pytest.approx(luma_psnr(10 * 219 / 255))
    assert measure.candidate == pytest.approx(luma_psnr(20 * 219 / 255))
    assert rung.loss == pytest.approx(20 * np.log10(2))
    assert rung.passed
    assert rung.greatest_loss == 7
    tighter = task_rung(reference, candidate, loss=6)
    assert tighter is not None and not tighter.passed
    assert reference.given[0].shape == (1, 3, 4, 6)  # cut to multiples of the scale, and halved


def test_a_hand_case_of_denoising(grey_picture: np.ndarray) -> None:
    """Noise of 25/255 makes 20 log10(255/25) = 20.17 dB, give or take chance; RGB PSNR counts all channels."""
    rung = task_rung(Constant(DENOISING, 129 / 255), Constant(DENOISING, 126 / 255), loss=1)
    (measure,) = rung.measures
    assert measure.baseline == pytest.approx(20.17, abs=1)
    assert measure.reference == pytest.approx(20 * np.log10(255), abs=1e-3)
    assert measure.candidate == pytest.approx(20 * np.log10(255 / 2), abs=1e-3)
    assert not rung.passed


@pytest.mark.parametrize(
    "spec",
    [dataclasses.replace(SR, **changes) for changes in ({"task": "jpeg", "scale": 1}, {"task": "real-world"})]
    + [dataclasses.replace(DENOISING, noise_level=None)],
    ids=lambda spec: spec.task,
)
def test_an_unknown_degradation_has_no_task_rung(spec: ModelSpec, grey_picture: np.ndarray) -> None:
    runner = Constant(spec, 0.5)
    assert degrade(grey_picture, spec) is None
    assert task_rung(runner, runner, 1) is None
    assert runner.given == []


def test_the_degradations() -> None:
    truth = np.random.default_rng(0).random((3, 8, 12), np.float32)
    small = degrade(truth, SR)
    assert np.array_equal(small, resize_bicubic(truth, 0.5, quantize=True))
    noisy = degrade(truth, DENOISING)
    assert noisy is not None and noisy.dtype == np.float32
    assert np.array_equal(noisy, degrade(truth, DENOISING))  # the same noise every time
    assert np.std(noisy - truth) == pytest.approx(25 / 255, rel=0.15)
    assert len(np.unique((noisy - truth).round(6))) > 200  # not one value for all


def test_the_baseline_is_bicubic(small_samples: list[tuple[str, Path]]) -> None:
    from agileir_export.images.files import read_image

    runner = Constant(SR, 0.5)
    rung = task_rung(runner, runner, 0)
    assert rung is not None and rung.passed  # nothing lost against itself
    truth = read_image(small_samples[0][1]).pixels
    small = degrade(truth, SR)
    assert rung.measures[0].baseline == pytest.approx(psnr_y(truth, resize_bicubic(small, 2), 2))
    assert rung.measures[0].baseline != pytest.approx(psnr(truth, resize_bicubic(small, 2)))


def test_a_grey_model_is_given_grey(grey_picture: np.ndarray) -> None:
    runner = Constant(dataclasses.replace(DENOISING, channels=1), 0.5)
    assert task_rung(runner, runner, 1) is not None
    assert runner.given[0].shape == (1, 1, 9, 13)


def test_losses_by_precision() -> None:
    assert TASK_LOSS == {"float32": 0.01, "float16": 0.02, "bfloat16": 0.1, "int8": 0.1}
