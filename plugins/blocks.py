"""Building blocks of the Triton kernels: where a window's tokens lie, mask, position bias, streaming softmax.

Imported by the ``kernel.py`` files only, and they only where a kernel is needed: this module needs Triton.

Tokens of a window are numbered row-major, 0..w*w-1. Blocks are padded to powers of two; the padding lanes carry
numbers beyond w*w, for which the addresses computed here are meaningless: every load and store masks them.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "FLOAT32_STEP",
    "LOG2E",
    "LOWEST",
    "accumulate_base2",
    "at_ends",
    "at_seam",
    "bias_position",
    "pixels",
    "pixels_at",
    "rows_and_columns",
    "scaled_bias",
    "sides",
]

LOWEST = tl.constexpr(-3.4028234663852886e38)

LOG2E = tl.constexpr(1.4426950408889634)
"""Binary logarithm of e: turns natural exponentials into those of base two, which are one instruction."""

FLOAT32_STEP = 8 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8) else 16
"""Fewest channels that a float32 `tl.dot` sums over: what it takes at a time where registers are short."""


@triton.jit  # type: ignore[untyped-decorator]
def rows_and_columns(start: tl.tensor, count: tl.constexpr, window_size: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Rows and columns in the window of tokens ``start .. start + count - 1``; `start` is a multiple of `count`.

    Where blocks hold whole rows, the columns are known when the kernel is compiled.
    """
    token = tl.arange(0, count)
    if count % window_size == 0:
        row = start // window_size + token // window_size
        column = token % window_size
    else:
        row = (start + token) // window_size
        column = (start + token) % window_size
    return row, column


@triton.jit  # type: ignore[untyped-decorator]
def wrapped(place: tl.tensor, size: tl.tensor) -> tl.tensor:
    """A row or column in ``0 .. 2 size - 1`` modulo `size`: negative numbers are the largest without a sign."""
    return tl.minimum(place.to(tl.uint32, bitcast=True), (place - size).to(tl.uint32, bitcast=True)).to(
        tl.int32, bitcast=True
    )


@triton.jit  # type: ignore[untyped-decorator]
def pixels_at(
    window: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    wraps: tl.constexpr = True,
) -> tl.tensor:
    """Pixel index (int64) in the unshifted ``[B, H, W]`` image of rows and columns of a window of the rolled image.

    `wraps` says that it may lie at the seam of a shift, where tokens come from the other side of the image.
    """
    rows = height // window_size
    columns = width // window_size
    image = window // (rows * columns)
    place = window % (rows * columns)
    above = (place // columns) * window_size + shift_size
    before = (place % columns) * window_size + shift_size
    if wraps and shift_size > 0:
        row = wrapped(above + row, height) - above
        column = wrapped(before + column, width) - before
    return ((image * height + above) * width + before + (row * width + column)).to(tl.int64)


@triton.jit  # type: ignore[untyped-decorator]
def pixels(
    window: tl.tensor,
    token: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    wraps: tl.constexpr = True,
) -> tl.tensor:
    """`pixels_at` of tokens."""
    row, column = token // window_size, token % window_size
    return pixels_at(window, row, column, height, width, window_size, shift_size, wraps)


@triton.jit  # type: ignore[untyped-decorator]
def at_ends(
    window: tl.tensor, height: tl.tensor, width: tl.tensor, window_size: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Whether a window lies in the last row of windows, and in the last column: there the seams of a shift are."""
    rows = height // window_size
    columns = width // window_size
    place = window % (rows * columns)
    return place // columns == rows - 1, place % columns == columns - 1


@triton.jit  # type: ignore[untyped-decorator]
def at_seam(window: tl.tensor, height: tl.tensor, width: tl.tensor, window_size: tl.constexpr) -> tl.tensor:
    """Whether a window lies in the last row or column of windows: only there do regions of a shift meet."""
    bottom, right = at_ends(window, height, width, window_size)
    return bottom | right


@triton.jit  # type: ignore[untyped-decorator]
def sides(
    window: tl.tensor,
    token: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
) -> tl.tensor:
    """On which side of the seams tokens of one window lie, 0..3: equal where their regions are."""
    bottom, last = at_ends(window, height, width, window_size)
    down = bottom & (token // window_size >= window_size - shift_size)
    right = last & (token % window_size >= window_size - shift_size)
    return 2 * down.to(tl.int32) + right.to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def bias_position(token: tl.tensor, window_size: tl.constexpr) -> tl.tensor:
    """One token's share of the bias table's row: the row for (n, m) is the difference plus a constant."""
    return (token // window_size) * (2 * window_size - 1) + token % window_size


@triton.jit  # type: ignore[untyped-decorator]
def scaled_bias(
    biases: tl.tensor,
    head: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    window_size: tl.constexpr,
    heads: tl.constexpr,
    key_width: tl.constexpr,
    in_rows: tl.constexpr,
    full: tl.constexpr,
) -> tl.tensor:
    """``sqrt(d)`` times the bias (float32) of a block of queries against a block of keys: where their products start.

    `biases` is the row form ``[heads, 2w-1, w, w]`` (`in_rows`), which already is scaled and is loaded 16 bytes at a
    time, or the table ``[(2w-1)^2, heads]``. `full` says that no lane is padding, so that no load needs a mask.
    """
    tokens: tl.constexpr = window_size * window_size
    mask = (query < tokens)[:, None] & (key < tokens)[None, :]
    if in_rows:
        above = (query // window_size) * tokens + (query % window_size) * window_size
        along = key % window_size - (key // window_size) * tokens  # the sign outside hides that keys are contiguous
        address = biases + (head * (2 * window_size - 1) + window_size - 1) * tokens + (above[:, None] + along[None, :])
    else:
        offset: tl.constexpr = 2 * window_size * (window_size - 1)
        row = bias_position(query, window_size)[:, None] - bias_position(key, window_size)[None, :]
        address = biases + head + (row + offset) * heads
    bias = tl.load(address, mask=None if full else mask, other=None if full else 0.0).to(tl.float32)
    if not in_rows:
        bias *= key_width**0.5
    return bias


@triton.jit  # type: ignore[untyped-decorator]
def accumulate_base2(
    logits: tl.tensor,
    value: tl.tensor,
    output: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    scale: tl.constexpr,
    summed: tl.constexpr,
    only: tl.constexpr = False,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """One step of a streaming softmax (Milakov and Gimelshein, arXiv 1805.02867) to base two, weighted with values.

    Args:
        logits: ``[M, n]`` float32, not yet scaled, -inf where a key is absent.
        value: ``[n, d]`` in the tensor type.
        output: ``[M, d]`` float32, so far, not yet divided.
        top: ``[M]`` float32, largest scaled logit so far; starts at `LOWEST`.
        total: ``[M]`` float32, sum of the weights so far.
        scale: Factor of the logits, times `LOG2E` for a natural softmax; positive.
        summed: Whether a lane of `value` holds ones, so that the same lane of `output` becomes the sum of the weights;
            `total` then stays as it is.
        only: Whether this is the first step and the last: `output` and `total` are then not read, `top` is `LOWEST`.

    Returns:
        The new output, top and total.
    """
    larger = tl.maximum(top, tl.max(logits, 1) * scale)
    weight = tl.exp2(logits * scale - larger[:, None])
    if only:
        if not summed:
            total = tl.sum(weight, 1)
        output = tl.dot(weight.to(value.dtype), value, input_precision="tf32x3")
    else:
        decay = tl.exp2(top - larger)
        if not summed:
            total = total * decay + tl.sum(weight, 1)
        output = tl.dot(weight.to(value.dtype), value, output * decay[:, None], input_precision="tf32x3")
    return output, larger, total
