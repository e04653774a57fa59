"""Image quality and difference, in the units that parity is judged by.

Images are float32 [C, H, W] or [B, C, H, W] in 0..1. A batch is judged by its worst image, never by
its average: a broken image must not hide among good ones. An image with NaN or infinity in it
scores -inf (and its greatest difference is inf), so that no comparison with a floor can pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["key_agreement", "luma", "max_steps", "nonfinite", "psnr", "psnr_y", "ssim_y"]

_Array = npt.NDArray[Any]
_Float64 = npt.NDArray[np.float64]

# ITU-R BT.601, section 2.5.1 and 2.5.2, for 8 bits: 219 steps above black at 16
_LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966])
_LUMA_BLACK = 16.0
_WINDOW, _SIGMA = 11, 1.5


def psnr(a: _Array, b: _Array, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mean((a - b)^2)), summed in float64.

    Args:
        a: [C, H, W] or [B, C, H, W]; clamped to 0..peak.
        b: Of the same shape; clamped likewise.
        peak: The largest possible value, fixed by the format and not by the data.

    Returns:
        dB of the worst image; inf if identical after clamping, -inf if a value is NaN or infinite.

    Raises:
        ValueError: The shapes differ, are not of the forms above, or are empty.
    """
    return min(_psnr(x, y, peak) for x, y in _pairs(a, b))


def luma(rgb: _Array) -> _Float64:
    """BT.601 luma as in MATLAB's rgb2ycbcr, not rounded.

    Y = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in 0..1 (ITU-R BT.601, section 2.5).

    Args:
        rgb: [..., C, H, W] in 0..1, C = 3, or 1 for grey.

    Returns:
        float64 [..., 1, H, W] in 8-bit steps: 16..235 for RGB; grey is its own luma, 0..255.

    Raises:
        ValueError: C is neither 1 nor 3.
    """
    values = np.asarray(rgb, np.float64)
    channels = values.shape[-3] if values.ndim >= 3 else 0
    if channels == 1:
        return values * 255
    if channels != 3:
        raise ValueError(f"luma needs [..., 1 or 3, H, W], got {list(values.shape)}")
    weighted = np.einsum("...chw,c->...hw", values, _LUMA_WEIGHTS)
    return np.asarray(weighted + _LUMA_BLACK)[..., None, :, :]


def psnr_y(a: _Array, b: _Array, border: int) -> float:
    """PSNR on luma, as the super-resolution literature reports it: peak 255, border left out.

    Args:
        a: [C, H, W] or [B, C, H, W], C = 1 or 3; clamped to 0..1 and rounded to 8 bits first.
        b: Of the same shape; treated likewise.
        border: Pixels to leave out on every side; the literature takes the scale factor.

    Returns:
        dB of the worst image; inf if identical, -inf if a value is NaN or infinite.

    Raises:
        ValueError: The shapes differ or are not of the forms above, or the border leaves nothing.
    """
    return min(_psnr(x, y, 255.0) for x, y in _luma_pairs(a, b, border, smallest=1))


def ssim_y(a: _Array, b: _Array, border: int) -> float:
    """Structural similarity on luma, averaged over the window positions inside the image.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
    equation 13 and section III-C: Gaussian 11 x 11 window of sigma 1.5, K1 = 0.01, K2 = 0.03,
    L = 255.

    Args:
        a: [C, H, W] or [B, C, H, W], C = 1 or 3; clamped to 0..1 and rounded to 8 bits first.
        b: Of the same shape; treated likewise.
        border: Pixels to leave out on every side before; the literature takes the scale factor.

    Returns:
        -1..1 of the worst image, 1 if identical; -inf if a value is NaN or infinite.

    Raises:
        ValueError: The shapes differ or are not of the forms above, or less than 11 x 11 is left.
    """
    return min(_ssim(x[0], y[0]) for x, y in _luma_pairs(a, b, border, smallest=_WINDOW))


def max_steps(a: _Array, b: _Array) -> float:
    """Largest absolute difference in 8-bit steps, 255 max |a - b|, neither rounded nor clamped.

    Args:
        a: [C, H, W] or [B, C, H, W] in 0..1.
        b: Of the same shape.

    Returns:
        0 or more; inf if a value is NaN or infinite.

    Raises:
        ValueError: The shapes differ, are not of the forms above, or are empty.
    """
    pairs = _pairs(a, b)
    if nonfinite(a) or nonfinite(b):
        return math.inf
    return max(float(np.max(np.abs(x - y))) * 255 for x, y in pairs)


def nonfinite(a: _Array) -> int:
    """How many values are NaN or infinite; any is a failure of the engine that made them."""
    return int(np.size(a) - np.count_nonzero(np.isfinite(a)))


def key_agreement(expected: Sequence[_Array], found: Sequence[_Array]) -> float:
    """Share of the keys of two dictionaries that both hold, over all rows and stages.

    2 |A and B| / (|A| + |B|), the coefficient of Dice.

    Args:
        expected: Packed sets of every stage, see `plugins.packing`.
        found: Those to compare, of the same shapes.
    """
    common = total = 0
    for a, b in zip(expected, found, strict=True):
        common += int(np.bitwise_count(a & b).sum())
        total += int(np.bitwise_count(a).sum() + np.bitwise_count(b).sum())
    return 2 * common / total


def _pairs(a: _Array, b: _Array) -> list[tuple[_Float64, _Float64]]:
    """The images of two batches side by side, as float64 [C, H, W]."""
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes: {list(a.shape)} and {list(b.shape)}")
    if a.ndim not in (3, 4) or 0 in a.shape:
        raise ValueError(f"images must be [C, H, W] or [B, C, H, W], not empty; {list(a.shape)}")
    batch = (1, *a.shape) if a.ndim == 3 else a.shape
    return [
        (np.asarray(x, np.float64), np.asarray(y, np.float64))
        for x, y in zip(a.reshape(batch), b.reshape(batch), strict=True)
    ]


def _luma_pairs(a: _Array, b: _Array, border: int, smallest: int) -> list[tuple[_Float64, _Float64]]:
    """Luma of the 8-bit-rounded images without their border, [1, H, W]; NaN stays NaN."""
    pairs = _pairs(a, b)
    height, width = a.shape[-2:]
    if border < 0 or min(height, width) - 2 * border < smallest:
        raise ValueError(f"a border of {border} must leave at least {smallest} x {smallest} of {list(a.shape)}")
    inside = (..., slice(border, height - border), slice(border, width - border))
    return [(_luma_8bit(x)[inside], _luma_8bit(y)[inside]) for x, y in pairs]


def _luma_8bit(image: _Float64) -> _Float64:
    if nonfinite(image):  # wherever it is, the border included
        return np.full_like(image[:1], np.nan)
    return luma(np.rint(np.clip(image, 0, 1) * 255) / 255)


def _psnr(a: _Float64, b: _Float64, peak: float) -> float:
    if nonfinite(a) or nonfinite(b):
        return -math.inf
    difference = np.clip(a, 0, peak) - np.clip(b, 0, peak)
    error = float(np.mean(difference * difference))
    return 10 * math.log10(peak * peak / error) if error > 0 else math.inf


def _ssim(a: _Float64, b: _Float64) -> float:
    if nonfinite(a) or nonfinite(b):
        return -math.inf
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a * mean_a
    var_b = _blur(b * b) - mean_b * mean_b
    covariance = _blur(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2)
    return float(similarity.mean())


def _blur(plane: _Float64) -> _Float64:
    """Gaussian window at every position where it lies inside, [H, W] to [H - 10, W - 10]."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    window /= window.sum()
    for axis in (0, 1):
        count = plane.shape[axis] - _WINDOW + 1
        shifted = (plane.take(range(k, k + count), axis) for k in range(_WINDOW))
        plane = np.sum([w * part for w, part in zip(window, shifted, strict=True)], axis=0)
    return plane
