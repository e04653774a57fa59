"""Histograms of absolute values whose bins never move, and the clipping thresholds found in them.

The bin of a value is the leading bits of its float32 representation: exponent and six bits of the mantissa, so that a
bin is 1/64 to 1/128 as wide as the values in it. Nothing has to be known of a tensor's range beforehand, memory is
bounded, and histograms of several images are added: the result depends neither on their order nor on interruptions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError

__all__ = ["BINS", "LEVELS", "histogram", "threshold"]

MANTISSA_BITS = 6
BINS = 255 << MANTISSA_BITS
"""Bins of the finite numbers; those of infinity and NaN come after."""

LEVELS = 127
"""Steps of a symmetric int8 tensor from zero to its threshold."""

SEARCHED = 5 << MANTISSA_BITS
"""Thresholds tried: the bin edges of the upper five octaves."""

ENTROPY_BINS, ENTROPY_STRIDE = 2048, 8

_Counts = npt.NDArray[np.int64]
_Float64 = npt.NDArray[np.float64]

EDGES: _Float64 = (
    (np.arange(BINS + 1, dtype=np.int64) << (23 - MANTISSA_BITS)).astype(np.int32).view(np.float32).astype(np.float64)
)
EDGES[-1] = 2.0**128


def histogram(values: npt.NDArray[Any]) -> _Counts:
    """Counts of the absolute values of a float32 tensor, ``[BINS]``.

    Raises:
        InputError: A value is NaN or infinite.
    """
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.int32) & 0x7FFFFFFF
    counts = np.bincount(bits >> (23 - MANTISSA_BITS), minlength=BINS)
    if len(counts) > BINS:
        raise InputError(
            f"{int(counts[BINS:].sum())} values of an activation are NaN or infinite.",
            why="The model overflows on a calibration image.",
            fix="Verify the float32 file first: `agileir-export verify`.",
        )
    return counts.astype(np.int64)


def threshold(counts: _Counts, largest: float, method: str, percentile: float) -> float:
    """The absolute value that becomes 127; greater ones are clipped.

    Args:
        counts: A histogram, see `histogram`.
        largest: The greatest absolute value that was counted.
        method: ``"minmax"``: nothing is clipped. ``"percentile"``: that share of the values is not clipped. ``"mse"``:
            least mean squared error, rounding and clipping together. ``"entropy"``: least Kullback-Leibler divergence
            (Migacz, "8-bit inference with TensorRT", GTC 2017).
        percentile: Share in percent, above 0, up to 100.

    Returns:
        A positive threshold of at most `largest`; 1.0 for a tensor that is zero throughout.

    Raises:
        ValueError: There is no such method.
    """
    if largest == 0 or method == "minmax":
        return largest or 1.0
    if method == "percentile":
        cumulated = np.cumsum(counts)
        inside = int(np.searchsorted(cumulated, cumulated[-1] * (percentile / 100)))
        return min(float(EDGES[inside + 1]), largest)
    if method == "mse":
        return min(_least_squares(counts), largest)
    if method == "entropy":
        return min(_least_divergence(counts, largest), largest)
    raise ValueError(f"no calibration method {method!r}")


def _rounding(position: _Float64) -> _Float64:
    """Integral from 0 to `position` of (t - round(t))^2."""
    nearest = np.rint(position)
    integral: _Float64 = nearest / 12 + (position - nearest) ** 3 / 3
    return integral


def _least_squares(counts: _Counts) -> float:
    """The threshold of least expected squared error, values spread evenly within their bins."""
    used = np.flatnonzero(counts)
    low, high, weight = EDGES[used], EDGES[used + 1], counts[used] / (EDGES[used + 1] - EDGES[used])
    top = int(used[-1]) + 1
    candidates = EDGES[max(1, top - SEARCHED) : top + 1]
    errors = np.empty(len(candidates))
    for index, clip in enumerate(candidates):
        step = clip / LEVELS
        inside = step**3 * (_rounding(np.minimum(high, clip) / step) - _rounding(np.minimum(low, clip) / step))
        beyond = (np.maximum(high - clip, 0) ** 3 - np.maximum(low - clip, 0) ** 3) / 3
        errors[index] = float(weight @ (inside + beyond))
    return float(candidates[int(errors.argmin())])


def _least_divergence(counts: _Counts, largest: float) -> float:
    """The threshold at which the quantised distribution tells most of the original."""
    edges = np.linspace(0, largest, ENTROPY_BINS + 1)
    cumulated = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    linear = np.diff(np.interp(edges, EDGES, cumulated))
    linear[0] = 0  # exact zeros are exact at every step width; their number would hide the rest
    sizes = range(LEVELS + 1, ENTROPY_BINS + 1, ENTROPY_STRIDE)
    divergences = [_divergence(linear, size) for size in sizes]
    return float(edges[sizes[int(np.argmin(divergences))]])


def _divergence(linear: _Float64, size: int) -> float:
    """Kullback-Leibler divergence of the first `size` bins from their image in 128 levels."""
    inside = linear[:size]
    reference = inside.copy()
    reference[-1] += linear[size:].sum()
    level = np.arange(size) * (LEVELS + 1) // size
    filled = inside > 0
    sums = np.bincount(level, inside, LEVELS + 1)
    sizes = np.bincount(level, filled, LEVELS + 1)
    spread = np.where(filled, (sums / np.maximum(sizes, 1))[level], 0)
    if not spread.any():
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    known = p > 0
    return float(np.sum(p[known] * np.log(p[known] / np.maximum(q[known], 1e-12))))
