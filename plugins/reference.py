"""What the operators' references in NumPy share: windows, regions, position bias, attention, one window at a time.

Each ``reference.py`` is written from its operator's definition and shares code with this module alone: a reference that
shares code with what it judges would share its mistakes. Everything is computed in float64 and returned in the type of
the image. Arguments are the operator's tensors, then its attributes by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WORD_BITS", "Array", "Float64", "attend", "attention", "cut", "paste", "position_bias", "regions"]

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

FOREIGN = -100.0
"""Added to the logits of tokens that only the shift brought into one window."""

WORD_BITS = 16
"""Bits of a dictionary word in use."""


def attention(
    qkv: Array, bias_table: Array, window_size: int, shift_size: int, num_heads: int, dictionary: Array | None = None
) -> Array:
    """Window attention of Swin (arXiv 2103.14030, sections 3.2 and equation 4), limited by a dictionary if given.

    Args:
        qkv: ``[B, H, W, 3*C]``: q, k and v, each ``num_heads x d``.
        bias_table: ``[(2*window_size - 1)^2, num_heads]``.
        window_size: Side of a window.
        shift_size: 0 <= shift < window.
        num_heads: Heads that C divides into.
        dictionary: int32 ``[B*windows, N, ceil(N/16)]`` keys of every query.

    Returns:
        ``[B, H, W, C]`` in the type of `qkv`.

    Raises:
        ValueError: The image is not made of whole windows, or the shift does not fit.
    """
    batch, height, width, thrice = qkv.shape
    channels = thrice // 3
    biases = position_bias(bias_table, window_size)
    by_window = regions(qkv.shape, window_size, shift_size)
    tokens = cut(qkv.astype(np.float64), window_size, shift_size)
    result = np.empty((*tokens.shape[:2], channels))
    for number, window in enumerate(tokens):
        region = by_window[number % len(by_window)]
        allowed = None if dictionary is None else _unpack(dictionary[number], len(window))
        parts = window.reshape(len(window), 3, num_heads, channels // num_heads)
        heads = []
        for head in range(num_heads):
            query, key, value = parts[:, :, head].swapaxes(0, 1)
            heads.append(attend(query, key, value, biases[head], region, allowed))
        result[number] = np.concatenate(heads, axis=1)
    return paste(result, (batch, height, width, channels), window_size, shift_size).astype(qkv.dtype)


def cut(image: Float64, window: int, shift: int) -> Float64:
    """``[B, H, W, C]`` to the windows of the shifted image, ``[B*windows, N, C]``."""
    batch, height, width, channels = image.shape
    rolled = np.roll(image, (-shift, -shift), axis=(1, 2))
    grid = rolled.reshape(batch, height // window, window, width // window, window, channels)
    return grid.swapaxes(2, 3).reshape(-1, window * window, channels)


def paste(windows: Float64, shape: Sequence[int], window: int, shift: int) -> Float64:
    """The inverse of `cut`."""
    batch, height, width, channels = shape
    grid = windows.reshape(batch, height // window, width // window, window, window, channels)
    return np.roll(grid.swapaxes(2, 3).reshape(shape), (shift, shift), axis=(1, 2))


def regions(shape: Sequence[int], window: int, shift: int) -> npt.NDArray[np.int64]:
    """Region of every token of every window of an image, ``[windows, N]``; tokens of one region see each other."""
    _, height, width, _ = shape
    if height % window or width % window or not 0 <= shift < window:
        raise ValueError(f"{height}x{width} pixels are not whole windows of {window}, or the shift {shift} is too far")

    def along(size: int) -> npt.NDArray[np.int64]:
        place = np.arange(size)
        return (place >= size - window).astype(np.int64) + (place >= size - shift) if shift else np.zeros(size, int)

    grid = 3 * along(height)[:, None] + along(width)
    return grid.reshape(height // window, window, width // window, window).swapaxes(1, 2).reshape(-1, window * window)


def position_bias(table: Array, window: int) -> Float64:
    """``[(2w-1)^2, heads]`` to ``[heads, N, N]`` (query, key)."""
    row, column = np.divmod(np.arange(window * window), window)
    rows, columns = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return np.moveaxis(table.astype(np.float64)[rows * (2 * window - 1) + columns], -1, 0)


def attend(
    query: Float64, key: Float64, value: Float64, bias: Float64, region: Array, allowed: Array | None = None
) -> Float64:
    """Softmax attention within a window: ``[N, dk]``, ``[N, dk]``, ``[N, dv]`` to ``[N, dv]``."""
    logits = query @ key.T / np.sqrt(query.shape[1]) + bias
    logits = logits + FOREIGN * (region[:, None] != region)
    if allowed is not None:
        logits = np.where(allowed, logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights @ value / weights.sum(axis=1, keepdims=True))


def _unpack(words: Array, tokens: int) -> npt.NDArray[np.bool_]:
    """Rows of packed words ``[N, words]`` to booleans ``[N, N]``."""
    bits = words[:, :, None] >> np.arange(WORD_BITS) & 1
    return np.asarray(bits.reshape(len(words), -1)[:, :tokens] != 0)
