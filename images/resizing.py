"""Bicubic resizing exactly as MATLAB's imresize does it, and padding to a multiple of a window.

Super-resolution papers make their low-resolution images with imresize, so a model is only measured
fairly on images made the same way; other libraries' bicubic filters differ by several dB.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["pad_to_multiple", "pad_to_size", "resize_bicubic"]

_Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]


def resize_bicubic(
    pixels: npt.NDArray[Any],
    scale_or_size: float | tuple[int, int],
    *,
    quantize: bool = False,
) -> npt.NDArray[Any]:
    """Resize the last two axes as MATLAB ``imresize(A, scale, "bicubic")`` does.

    The kernel is Keys' cubic with a = -0.5 (Keys 1981, "Cubic convolution interpolation for digital
    image processing"), stretched by 1 / scale when shrinking (antialiasing), with whole-sample
    symmetric borders. The axis that shrinks most goes first, rows first if equal. To reproduce a
    benchmark's low-resolution files, crop the image to a multiple of the factor before.

    Args:
        pixels: float32 or float64 [..., H, W]; nothing is clamped unless `quantize` is set.
        scale_or_size: Factor for both axes (1/3 shrinks by 3), where sizes are rounded up, or the
            new (H, W).
        quantize: Work as imresize does on uint8 images: take `pixels` as 0..1, round them to 8-bit
            steps, and round half up and clamp after each of the two passes.

    Returns:
        The resized array, of the dtype of `pixels`. Without `quantize`, values can leave the
        input's range a little.

    Raises:
        ValueError: `pixels` is not floating point or has an empty axis, or the factor or size is
            not positive.
    """
    if pixels.dtype not in (np.float32, np.float64) or pixels.ndim < 2 or 0 in pixels.shape:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise ValueError(f"pixels must be float32 or float64 [..., H, W], not empty; got {found}")
    height, width = pixels.shape[-2:]
    if isinstance(scale_or_size, tuple):
        new_height, new_width = scale_or_size
        scales = new_height / height, new_width / width
    else:
        scales = float(scale_or_size), float(scale_or_size)
        if not 0 < scales[0] < math.inf:
            raise ValueError(f"the factor must be positive and finite, got {scale_or_size}")
        # 1e-9 absorbs the rounding of factors such as 1/3, where a whole size would become one more
        new_height, new_width = (math.ceil(size * scales[0] - 1e-9) for size in (height, width))
    if new_height < 1 or new_width < 1:
        raise ValueError(f"the new size must be at least 1 x 1, got {new_height} x {new_width}")

    work = pixels
    if quantize:
        work = _round_8bit(pixels.astype(np.float64) * 255)
    rows = _taps(height, new_height, scales[0])
    columns = _taps(width, new_width, scales[1])
    for axis in (-2, -1) if scales[0] <= scales[1] else (-1, -2):
        if axis == -2:
            work = _resize_rows(work, *rows)
        else:
            work = _resize_rows(work.swapaxes(-1, -2), *columns).swapaxes(-1, -2)
        if quantize:
            work = _round_8bit(work)
    if quantize:
        work = work / 255
    return np.ascontiguousarray(work, pixels.dtype)


def pad_to_multiple(images: npt.NDArray[np.float32], multiple: int) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    """Pad at the bottom and the right until height and width are multiples of a number.

    Each axis is mirrored without repeating the edge (numpy "reflect") where the padding is smaller
    than the axis, and repeats its edge otherwise, so that every size from 1 x 1 on works.

    Args:
        images: float32 [B, C, H, W].
        multiple: At least 1; a window size, or the product of window size and strides.

    Returns:
        The padded images (the input itself where nothing is missing), and the (H, W) before.

    Raises:
        ValueError: `images` is not [B, C, H, W] with H, W >= 1, or `multiple` is below 1.
    """
    if images.ndim != 4 or 0 in images.shape[2:]:
        raise ValueError(f"images must be [B, C, H, W] with H, W >= 1, got {list(images.shape)}")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    height, width = images.shape[2:]
    return pad_to_size(images, height + -height % multiple, width + -width % multiple), (height, width)


def pad_to_size(images: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Pad at the bottom and the right to a size, as `pad_to_multiple` does.

    Args:
        images: float32 [B, C, H, W] with H, W >= 1.
        height: Rows wanted, at least H.
        width: Columns wanted, at least W.

    Returns:
        The padded images; the input itself where nothing is missing.
    """
    for axis, wanted in ((2, height), (3, width)):
        size = images.shape[axis]
        missing = wanted - size
        if missing:
            widths = [(0, 0)] * 4
            widths[axis] = (0, missing)
            images = np.pad(images, widths, mode="reflect" if missing < size else "edge")
    return images


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981, equation 15)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@lru_cache(maxsize=256)
def _taps(size: int, new_size: int, scale: float) -> _Taps:
    """Input positions and weights of every output sample along one axis, both [new_size, taps]."""
    stretch = min(scale, 1.0)
    # centres of the output samples on the input's grid; both grids share their outer edges
    centres = (np.arange(new_size) + 0.5) / scale - 0.5
    first = np.floor(centres - 2 / stretch).astype(np.intp)
    positions = first[:, None] + np.arange(math.ceil(4 / stretch) + 2)
    weights = _cubic((centres[:, None] - positions) * stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    positions, weights = positions[:, used] % (2 * size), weights[:, used]
    positions = np.minimum(positions, 2 * size - 1 - positions)  # ... 1 0 | 0 1 2 ... n-1 | n-1 ...
    positions.flags.writeable = weights.flags.writeable = False
    return positions, weights


def _resize_rows(
    pixels: npt.NDArray[Any], positions: npt.NDArray[np.intp], weights: npt.NDArray[np.float64]
) -> npt.NDArray[Any]:
    """Weighted sums of rows, [..., H, W] to [..., new H, W], tap by tap in ascending order."""
    pixels = np.ascontiguousarray(pixels)
    weights = weights.astype(pixels.dtype)[:, :, None]
    total = pixels.take(positions[:, 0], axis=-2) * weights[:, 0]
    for tap in range(1, positions.shape[1]):
        total += pixels.take(positions[:, tap], axis=-2) * weights[:, tap]
    return total


def _round_8bit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Clamp to 0..255 and round half up, as MATLAB's conversion to uint8 does."""
    return np.floor(np.clip(values, 0, 255) + 0.5)
