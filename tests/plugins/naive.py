"""The four operators in double precision, one loop per index of their definition.

Written from the definition alone and on purpose as slow and obvious as possible: no roll, no
partition, no broadcasting. Only dot products are vectorised. Every function takes numpy arrays
(any numeric type, converted to float64) and returns a new one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Window(NamedTuple):
    """One window: its image number, the unshifted pixel and the region of each of its tokens."""

    batch: int
    pixels: list[tuple[int, int]]
    regions: list[int]


def region_along(position: int, size: int, w: int, s: int) -> int:
    if s == 0:
        return 0
    return int(position >= size - w) + int(position >= size - s)


def windows(batch: int, height: int, width: int, w: int, s: int) -> Iterator[Window]:
    """Windows in order: image, window row, window column; tokens row by row."""
    for b in range(batch):
        for top in range(0, height, w):
            for left in range(0, width, w):
                pixels, regions = [], []
                for r in range(top, top + w):
                    for c in range(left, left + w):
                        pixels.append(((r + s) % height, (c + s) % width))
                        regions.append(3 * region_along(r, height, w, s) + region_along(c, width, w, s))
                yield Window(b, pixels, regions)


def bias_row(n: int, m: int, w: int) -> int:
    rows = n // w - m // w
    columns = n % w - m % w
    return (rows + w - 1) * (2 * w - 1) + (columns + w - 1)


def softmax_average(logits: dict[int, float], values: list[Array]) -> Array:
    """Average of `values` weighted by the softmax of `logits` (token -> logit)."""
    largest = max(logits.values())
    weights = {m: math.exp(logit - largest) for m, logit in logits.items()}
    total = sum(weights.values())
    result = np.zeros_like(values[0])
    for m, weight in weights.items():
        result = result + weight / total * values[m]
    return result


def attend(
    query: list[Array],
    key: list[Array],
    value: list[Array],
    bias: Array,
    regions: list[int],
    w: int,
    allowed: list[list[int]] | None = None,
) -> list[Array]:
    """Attention of one head in one window; `bias` is that head's column of the table."""
    result = []
    for n in range(w * w):
        logits = {}
        for m in range(w * w) if allowed is None else allowed[n]:
            logit = float(np.dot(query[n], key[m])) / math.sqrt(len(query[n]))
            logit += float(bias[bias_row(n, m, w)])
            if regions[n] != regions[m]:
                logit -= 100.0
            logits[m] = logit
        result.append(softmax_average(logits, value))
    return result


def depthwise(tokens: list[Array], weight: Array, bias: Array, w: int) -> list[Array]:
    """kh x kw correlation of each channel of a w x w window, zeros outside of the window."""
    channels, kernel_height, kernel_width = weight.shape
    result = []
    for r in range(w):
        for c in range(w):
            total = np.array([float(bias[channel]) for channel in range(channels)])
            for i in range(kernel_height):
                for j in range(kernel_width):
                    row, column = r + i - kernel_height // 2, c + j - kernel_width // 2
                    if 0 <= row < w and 0 <= column < w:
                        for channel in range(channels):
                            total[channel] += weight[channel, i, j] * tokens[row * w + column][channel]
            result.append(total)
    return result


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
    x, qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, bias_table = (
        np.asarray(array, np.float64) for array in (x, qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, bias_table)
    )
    groups, _, cg = qkv_weight.shape
    dk = q_dw_weight.shape[1]
    y = np.full(x.shape, np.nan)
    for window in windows(*x.shape[:3], window_size, shift_size):
        previous: list[Array] = []
        for g in range(groups):
            query, key, value = [], [], []
            for n, (row, column) in enumerate(window.pixels):
                u = x[window.batch, row, column, g * cg : (g + 1) * cg]
                if g > 0:
                    u = u + previous[n]
                projected = np.array([np.dot(weight, u) for weight in qkv_weight[g]], np.float64)
                projected = projected + qkv_bias[g]
                query.append(projected[:dk])
                key.append(projected[dk : 2 * dk])
                value.append(projected[2 * dk :])
            query = depthwise(query, q_dw_weight[g], q_dw_bias[g], window_size)
            previous = attend(query, key, value, bias_table[:, g], window.regions, window_size)
            for n, (row, column) in enumerate(window.pixels):
                y[window.batch, row, column, g * cg : (g + 1) * cg] = previous[n]
    return y


def unpack(words: Array, tokens: int) -> list[list[int]]:
    """Rows of packed words to the token numbers that they hold."""
    return [[m for m in range(tokens) if (int(row[m // 16]) >> (m % 16)) & 1] for row in words]


def pack(rows: list[list[int]], tokens: int) -> Array:
    words = np.zeros((len(rows), math.ceil(tokens / 16)), np.int32)
    for n, row in enumerate(rows):
        for m in row:
            words[n, m // 16] += 2 ** (m % 16)
    return words


def shifted_window_attention(
    qkv: Array, bias_table: Array, window_size: int, shift_size: int, num_heads: int, dictionary: Array | None = None
) -> Array:
    qkv, bias_table = np.asarray(qkv, np.float64), np.asarray(bias_table, np.float64)
    batch, height, width, channels = qkv.shape
    channels //= 3
    d = channels // num_heads
    y = np.full((batch, height, width, channels), np.nan)
    for number, window in enumerate(windows(batch, height, width, window_size, shift_size)):
        allowed = None
        if dictionary is not None:
            allowed = unpack(dictionary[number], window_size * window_size)
        for head in range(num_heads):
            starts = (part * channels + head * d for part in range(3))
            query, key, value = (
                [qkv[window.batch, row, column, start : start + d] for row, column in window.pixels] for start in starts
            )
            result = attend(query, key, value, bias_table[:, head], window.regions, window_size, allowed)
            for n, (row, column) in enumerate(window.pixels):
                y[window.batch, row, column, head * d : (head + 1) * d] = result[n]
    return y


def key_semantic_attention(
    qkv: Array, dictionary: Array, bias_table: Array, window_size: int, shift_size: int, num_heads: int
) -> Array:
    return shifted_window_attention(qkv, bias_table, window_size, shift_size, num_heads, dictionary)


def key_semantic_dictionary(x: Array, window_size: int, shift_size: int, top_k: int) -> Array:
    x = np.asarray(x, np.float64)
    tokens = window_size * window_size
    chosen = min(top_k, tokens)
    packed = []
    for window in windows(*x.shape[:3], window_size, shift_size):
        features = [x[window.batch, row, column] for row, column in window.pixels]
        rows = []
        for n in range(tokens):
            order = sorted(
                (window.regions[n] != window.regions[m], -float(np.dot(features[n], features[m])), m)
                for m in range(tokens)
            )
            rows.append([m for _, _, m in order[:chosen]])
        packed.append(pack(rows, tokens))
    return np.stack(packed)
