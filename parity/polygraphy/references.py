"""The four operators in numpy, one window at a time, for polygraphy's runner ``--pluginref``.

Written from the operators' definition and from nothing else in this package: a reference that shares code with what it
judges would share its mistakes. Everything is computed in float64 and returned in the type of the image. Importing this
registers them with polygraphy. That runner knows only operators with a reference, so it runs a subgraph around one of
our nodes (``polygraphy surgeon extract``), not a whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from polygraphy.backend.pluginref import references as polygraphy_references
from polygraphy.logger import G_LOGGER

__all__ = [
    "REFERENCES",
    "group_shifted_window_attention",
    "key_semantic_attention",
    "key_semantic_dictionary",
    "shifted_window_attention",
]

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

FOREIGN = -100.0
"""Added to the logits of tokens that only the shift brought into one window."""

WORD_BITS = 16
"""Bits of a dictionary word in use."""


def group_shifted_window_attention(
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
    biases = _position_bias(bias_table, window_size)
    regions = _regions(x.shape, window_size, shift_size)
    tokens = _cut(x.astype(np.float64), window_size, shift_size)
    result = np.empty_like(tokens)
    for number, window in enumerate(tokens):
        region = regions[number % len(regions)]
        output: Float64 = np.zeros((len(window), width))
        for group in range(groups):
            channels = slice(group * width, (group + 1) * width)
            projected = (window[:, channels] + output) @ qkv_weight[group].T.astype(np.float64) + qkv_bias[group]
            query, key, value = np.split(projected, (key_width, 2 * key_width), axis=1)
            query = _depthwise(query, q_dw_weight[group], q_dw_bias[group], window_size)
            output = _attend(query, key, value, biases[group], region)
            result[number, :, channels] = output
    return _paste(result, x.shape, window_size, shift_size).astype(x.dtype)


def shifted_window_attention(
    qkv: Array, bias_table: Array, window_size: int, shift_size: int, num_heads: int, dictionary: Array | None = None
) -> Array:
    """Window attention of Swin (arXiv 2103.14030, sections 3.2 and equation 4), limited by a dictionary if given.

    Args:
        qkv: ``[B, H, W, 3*C]``: q, k and v, each ``num_heads x d``.
        bias_table: ``[(2*window_size - 1)^2, num_heads]``.
        window_size: Side of a window.
        shift_size: 0 <= shift < window.
        num_heads: Heads that C divides into.
        dictionary: int32 ``[B*windows, N, ceil(N/16)]`` of `key_semantic_dictionary`.

    Returns:
        ``[B, H, W, C]`` in the type of `qkv`.

    Raises:
        ValueError: The image is not made of whole windows, or the shift does not fit.
    """
    batch, height, width, thrice = qkv.shape
    channels = thrice // 3
    biases = _position_bias(bias_table, window_size)
    regions = _regions(qkv.shape, window_size, shift_size)
    tokens = _cut(qkv.astype(np.float64), window_size, shift_size)
    result = np.empty((*tokens.shape[:2], channels))
    for number, window in enumerate(tokens):
        region = regions[number % len(regions)]
        allowed = None if dictionary is None else _unpack(dictionary[number], len(window))
        parts = window.reshape(len(window), 3, num_heads, channels // num_heads)
        heads = []
        for head in range(num_heads):
            query, key, value = parts[:, :, head].swapaxes(0, 1)
            heads.append(_attend(query, key, value, biases[head], region, allowed))
        result[number] = np.concatenate(heads, axis=1)
    return _paste(result, (batch, height, width, channels), window_size, shift_size).astype(qkv.dtype)


def key_semantic_attention(
    qkv: Array, dictionary: Array, bias_table: Array, window_size: int, shift_size: int, num_heads: int
) -> Array:
    """`shifted_window_attention` in which a query sees the tokens of its dictionary row only (arXiv 2405.20008)."""
    return shifted_window_attention(qkv, bias_table, window_size, shift_size, num_heads, dictionary)


def key_semantic_dictionary(x: Array, window_size: int, shift_size: int, top_k: int) -> Array:
    """The `top_k` most similar tokens of every token's window, as sets of bits (SemanIR, arXiv 2405.20008).

    Tokens of the same region come first, then larger dot products, then lower indices.

    Args:
        x: ``[B, H, W, C]``, H and W multiples of the window.
        window_size: Side of a window; N is its square.
        shift_size: 0 <= shift < window.
        top_k: Tokens to choose; all where it exceeds N.

    Returns:
        int32 ``[B*windows, N, ceil(N/16)]``; bit ``m % 16`` of word ``m // 16`` of row n: n attends to m.

    Raises:
        ValueError: The image is not made of whole windows, or the shift does not fit.
    """
    regions = _regions(x.shape, window_size, shift_size)
    rows = []
    for number, window in enumerate(_cut(x.astype(np.float64), window_size, shift_size)):
        region = regions[number % len(regions)]
        order = np.lexsort((-(window @ window.T), region[:, None] != region), axis=-1)  # stable: ties by index
        chosen = np.zeros((len(window), -(-len(window) // WORD_BITS) * WORD_BITS), bool)
        np.put_along_axis(chosen, order[:, :top_k], True, axis=1)
        words = chosen.reshape(len(window), -1, WORD_BITS) @ (1 << np.arange(WORD_BITS))
        rows.append(words.astype(np.int32))
    return np.stack(rows)


def _cut(image: Float64, window: int, shift: int) -> Float64:
    """``[B, H, W, C]`` to the windows of the shifted image, ``[B*windows, N, C]``."""
    batch, height, width, channels = image.shape
    rolled = np.roll(image, (-shift, -shift), axis=(1, 2))
    grid = rolled.reshape(batch, height // window, window, width // window, window, channels)
    return grid.swapaxes(2, 3).reshape(-1, window * window, channels)


def _paste(windows: Float64, shape: Sequence[int], window: int, shift: int) -> Float64:
    """The inverse of `_cut`."""
    batch, height, width, channels = shape
    grid = windows.reshape(batch, height // window, width // window, window, window, channels)
    return np.roll(grid.swapaxes(2, 3).reshape(shape), (shift, shift), axis=(1, 2))


def _regions(shape: Sequence[int], window: int, shift: int) -> npt.NDArray[np.int64]:
    """Region of every token of every window of an image, ``[windows, N]``; tokens of one region see each other."""
    _, height, width, _ = shape
    if height % window or width % window or not 0 <= shift < window:
        raise ValueError(f"{height}x{width} pixels are not whole windows of {window}, or the shift {shift} is too far")

    def along(size: int) -> npt.NDArray[np.int64]:
        place = np.arange(size)
        return (place >= size - window).astype(np.int64) + (place >= size - shift) if shift else np.zeros(size, int)

    grid = 3 * along(height)[:, None] + along(width)
    return grid.reshape(height // window, window, width // window, window).swapaxes(1, 2).reshape(-1, window * window)


def _position_bias(table: Array, window: int) -> Float64:
    """``[(2w-1)^2, heads]`` to ``[heads, N, N]`` (query, key)."""
    row, column = np.divmod(np.arange(window * window), window)
    rows, columns = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return np.moveaxis(table.astype(np.float64)[rows * (2 * window - 1) + columns], -1, 0)


def _attend(
    query: Float64, key: Float64, value: Float64, bias: Float64, region: Array, allowed: Array | None = None
) -> Float64:
    """Softmax attention within a window: ``[N, dk]``, ``[N, dk]``, ``[N, dv]`` to ``[N, dv]``."""
    logits = query @ key.T / np.sqrt(query.shape[1]) + bias
    logits = logits + FOREIGN * (region[:, None] != region)
    if allowed is not None:
        logits = np.where(allowed, logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights @ value / weights.sum(axis=1, keepdims=True))


def _depthwise(tokens: Float64, weight: Array, bias: Array, window: int) -> Float64:
    """One filter a channel over a window laid out as an image; zeros outside of the window."""
    channels, rows, columns = weight.shape
    image = tokens.reshape(window, window, channels)
    padded = np.pad(image, ((rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    columns_of = np.lib.stride_tricks.sliding_window_view(padded, columns, axis=1)
    views = np.lib.stride_tricks.sliding_window_view(columns_of, rows, axis=0)
    filtered = np.einsum("xycji,cij->xyc", views, weight.astype(np.float64)) + bias
    return np.asarray(filtered.reshape(-1, channels))


def _unpack(words: Array, tokens: int) -> npt.NDArray[np.bool_]:
    """Rows of packed words ``[N, words]`` to booleans ``[N, N]``."""
    bits = words[:, :, None] >> np.arange(WORD_BITS) & 1
    return np.asarray(bits.reshape(len(words), -1)[:, :tokens] != 0)


REFERENCES: Mapping[str, tuple[Callable[..., Array], tuple[str, ...]]] = {
    "GroupShiftedWindowAttention": (group_shifted_window_attention, ("window_size", "shift_size")),
    "ShiftedWindowAttention": (shifted_window_attention, ("window_size", "shift_size", "num_heads")),
    "KeySemanticDictionary": (key_semantic_dictionary, ("window_size", "shift_size", "top_k")),
    "KeySemanticAttention": (key_semantic_attention, ("window_size", "shift_size", "num_heads")),
}
"""Function and attributes by ONNX operator."""


def _register(name: str, function: Callable[..., Array], attributes: Sequence[str]) -> None:
    def reference(attrs: Mapping[str, Any], *inputs: Array) -> list[Array]:
        try:
            return [function(*inputs, **{attribute: int(attrs[attribute]) for attribute in attributes})]
        except ValueError as error:
            G_LOGGER.critical(f"{name}: {error}.")
            raise

    polygraphy_references.register(name)(reference)


for _name, (_function, _attributes) in REFERENCES.items():
    _register(_name, _function, _attributes)
