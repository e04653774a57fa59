"""The reference of GroupShiftedWindowAttention in NumPy."""

from __future__ import annotations

import numpy as np

from ..reference import Array, Float64, attend, cut, paste, position_bias, regions

__all__ = ["reference"]


def reference(
    x: Array,
    qkv_weight: Array,
    qkv_bias: Array,
    q_dw_weight: Array,
    q_dw_bias: Array,
    bias_table: Array,
    window_size: int,
    shift_size: int,
) -> Array:
    """Cascaded group attention of AgileIR (arXiv 2409.06206, section 3).

    Args:
        x: ``[B, H, W, G*Cg]``, H and W multiples of the window.
        qkv_weight: ``[G, 2*dk + Cg, Cg]``, rows q, k, v.
        qkv_bias: ``[G, 2*dk + Cg]``.
        q_dw_weight: ``[G, dk, kh, kw]``, odd sizes.
        q_dw_bias: ``[G, dk]``.
        bias_table: ``[(2*window_size - 1)^2, G]``.
        window_size: Side of a window.
        shift_size: 0 <= shift < window.

    Returns:
        ``[B, H, W, G*Cg]`` in the type of `x`.

    Raises:
        ValueError: The image is not made of whole windows, or the shift does not fit.
    """
    groups, _, width = qkv_weight.shape
    key_width = q_dw_weight.shape[1]
    biases = position_bias(bias_table, window_size)
    by_window = regions(x.shape, window_size, shift_size)
    tokens = cut(x.astype(np.float64), window_size, shift_size)
    result = np.empty_like(tokens)
    for number, window in enumerate(tokens):
        region = by_window[number % len(by_window)]
        output: Float64 = np.zeros((len(window), width))
        for group in range(groups):
            channels = slice(group * width, (group + 1) * width)
            projected = (window[:, channels] + output) @ qkv_weight[group].T.astype(np.float64) + qkv_bias[group]
            query, key, value = np.split(projected, (key_width, 2 * key_width), axis=1)
            query = _depthwise(query, q_dw_weight[group], q_dw_bias[group], window_size)
            output = attend(query, key, value, biases[group], region)
            result[number, :, channels] = output
    return paste(result, x.shape, window_size, shift_size).astype(x.dtype)


def _depthwise(tokens: Float64, weight: Array, bias: Array, window: int) -> Float64:
    """One filter a channel over a window laid out as an image; zeros outside of the window."""
    channels, rows, columns = weight.shape
    image = tokens.reshape(window, window, channels)
    padded = np.pad(image, ((rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    columns_of = np.lib.stride_tricks.sliding_window_view(padded, columns, axis=1)
    views = np.lib.stride_tricks.sliding_window_view(columns_of, rows, axis=0)
    filtered = np.einsum("xycji,cij->xyc", views, weight.astype(np.float64)) + bias
    return np.asarray(filtered.reshape(-1, channels))
