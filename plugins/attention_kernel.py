"""What the attention kernels do, in one Triton function: with a dictionary that limits the keys of a query, or without.

Imported by ``kernel.py`` files only, as `blocks`: this module needs Triton. Compiled into the kernel that calls it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import LOG2E, LOWEST, accumulate_base2, at_seam, pixels, scaled_bias, sides
from .packing import WORD_BITS

__all__ = ["attend_block"]

BITS = tl.constexpr(WORD_BITS)


@triton.jit  # type: ignore[untyped-decorator]
def attended(
    dictionary: tl.tensor,
    window: tl.tensor,
    query: tl.tensor,
    start: tl.tensor,
    tokens: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
) -> tl.tensor:
    """Whether queries attend to keys ``start .. start + keys - 1``: a block of the dictionary, unpacked.

    Every bit is tested where it lies: the masks are the same in every step, and no word is shifted.
    """
    row_words: tl.constexpr = (tokens + BITS - 1) // BITS
    word = start // BITS + tl.arange(0, keys // BITS)
    row = (window.to(tl.int64) * tokens + query)[:, None] * row_words
    mask = (query < tokens)[:, None] & (word < row_words)[None, :]
    packed = tl.load(dictionary + row + word[None, :], mask=mask, other=0)
    bits = packed[:, :, None] & (1 << tl.arange(0, BITS))[None, None, :]
    return tl.reshape(bits, [queries, keys]) != 0


@triton.jit  # type: ignore[untyped-decorator]
def attend(
    qkv: tl.tensor,
    dictionary: tl.tensor | None,
    bias_table: tl.tensor,
    query: tl.tensor,
    query_token: tl.tensor,
    window: tl.tensor,
    head: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    heads: tl.constexpr,
    head_width: tl.constexpr,
    lanes: tl.constexpr,
    in_rows: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
    masked: tl.tensor,
) -> tl.tensor:
    """A block of queries of one head against all keys of its window: ``[queries, lanes]`` float32.

    `masked` says whether regions of a shift meet in the window: a constant, or a number to ask.
    """
    tokens: tl.constexpr = window_size * window_size
    channels: tl.constexpr = heads * head_width
    full: tl.constexpr = tokens % queries == 0 and tokens % keys == 0
    summed: tl.constexpr = head_width < lanes
    scale: tl.constexpr = LOG2E * head_width**-0.5
    wraps: tl.constexpr = tokens <= keys or masked
    lane = tl.arange(0, lanes)
    part = head * head_width + lane[None, :]
    result = tl.zeros([queries, lanes], tl.float32)
    top = tl.full([queries], LOWEST, tl.float32)
    total = tl.zeros([queries], tl.float32)
    for start in range(0, tokens, keys):
        if dictionary is not None:
            allowed = attended(dictionary, window, query_token, start, tokens, queries, keys)
        key_token = start + tl.arange(0, keys)
        key_pixel = pixels(window, key_token, height, width, window_size, shift_size, wraps)[:, None]
        key_mask = (key_token < tokens)[:, None] & (lane < head_width)[None, :]
        address = (qkv + part) + key_pixel * (3 * channels)
        key = tl.load(address + channels, mask=key_mask, other=0.0)
        value = tl.load(address + 2 * channels, mask=key_mask, other=1.0 if summed else 0.0)
        logits = scaled_bias(bias_table, head, query_token, key_token, window_size, heads, head_width, in_rows, full)
        logits = tl.dot(query, tl.trans(key), logits, input_precision="tf32x3")
        if masked:
            side = sides(window, query_token, height, width, window_size, shift_size)
            key_side = sides(window, key_token, height, width, window_size, shift_size)
            logits -= tl.where(side[:, None] != key_side[None, :], 100.0 * head_width**0.5, 0.0)
        if dictionary is not None:
            logits = tl.where(allowed, logits, float("-inf"))
        elif not full:
            logits = tl.where((key_token < tokens)[None, :], logits, float("-inf"))
        result, top, total = accumulate_base2(logits, value, result, top, total, scale, summed, tokens <= keys)
    if summed:
        total = tl.sum(tl.where((lane == head_width)[None, :], result, 0.0), 1)
    return result * (1.0 / total)[:, None]


@triton.jit  # type: ignore[untyped-decorator]
def attend_block(
    qkv: tl.tensor,
    dictionary: tl.tensor | None,
    bias_table: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    heads: tl.constexpr,
    head_width: tl.constexpr,
    lanes: tl.constexpr,
    in_rows: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
) -> None:
    """``softmax(d^-0.5 q k^T + bias + mask) v``, roll, partition and reverse by address (arXiv 2103.14030, 3.2).

    `lanes` is `head_width` padded to a power of two; programs run head by head, then query blocks, then windows. The
    products start from the scaled bias, and their scaling is a factor of the exponent. Only windows at the seam are
    masked. A spare lane of the values holds ones: it sums the weights. With a dictionary, all keys outside a query's
    row have logit -inf; it names no token beyond the window, so padding lanes of keys need no further mask.
    """
    tokens: tl.constexpr = window_size * window_size
    channels: tl.constexpr = heads * head_width
    program = tl.program_id(0)
    head = program % heads
    block = (program // heads) % tl.cdiv(tokens, queries)
    window = program // (heads * tl.cdiv(tokens, queries))

    lane = tl.arange(0, lanes)
    query_token = block * queries + tl.arange(0, queries)
    query_pixel = pixels(window, query_token, height, width, window_size, shift_size)[:, None]
    query_mask = (query_token < tokens)[:, None] & (lane < head_width)[None, :]
    part = head * head_width + lane[None, :]
    query = tl.load(qkv + query_pixel * (3 * channels) + part, mask=query_mask, other=0.0)
    seam = at_seam(window, height, width, window_size) if shift_size > 0 else False
    result = tl.zeros([queries, lanes], tl.float32)
    # A question inside a loop over keys would part its two products: Triton then spreads both over keys, too.
    copies: tl.constexpr = 2 if shift_size > 0 and tokens > keys else 1
    for copy in tl.static_range(copies):
        masked = seam if copies == 1 else copy > 0
        if copies == 1 or seam == masked:
            result = attend(
                qkv,
                dictionary,
                bias_table,
                query,
                query_token,
                window,
                head,
                height,
                width,
                window_size,
                shift_size,
                heads,
                head_width,
                lanes,
                in_rows,
                queries,
                keys,
                masked,
            )
    tl.store(output + query_pixel * channels + part, result.to(output.dtype.element_ty), mask=query_mask)
