"""The Triton kernel of KeySemanticDictionary: the similarities of a block of rows stay in registers, K are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import FLOAT32_STEP, at_ends, at_seam, pixels, sides
from ..launch import Launch, NoKernel, Shape, block_size, check_image, pick
from ..packing import WORD_BITS, words
from . import NAME

__all__ = [
    "MAX_TOKENS",
    "OUTPUT_TYPE",
    "SCRATCH",
    "TACTICS",
    "key_semantic_dictionary_kernel",
    "launch",
    "output_shape",
]

OUTPUT_TYPE: str | None = "int32"
"""Type of the output; None where it is the image's."""

SCRATCH = False
"""Whether the kernel takes scratch memory."""

TACTICS = ((32, 256, 8, 2), (16, 256, 4, 2))
"""Rows and columns of a block of similarities (fewer where a window has fewer tokens), warps, and stages."""

FLOAT32 = 16, 128, 4, 2
"""The same of float32, whatever the tactic: registers are short."""

SMALL_TOKENS = 256
"""Tokens of a window up to which blocks have columns, warps and stages of their own."""

SMALL = {32: (32, 1), 16: (128, 2)}
"""Columns and stages of such a block by its rows: warps divide rows before columns where it is as high as wide."""

SMALL_SHARE = 64
"""Similarities that a thread then holds: the fewer threads share a row, the fewer have to exchange what they count."""

MAX_TOKENS = 1024
"""Tokens of a window: a whole row of similarities is held in registers."""

BITS = tl.constexpr(WORD_BITS)

SIGN = tl.constexpr(-(2**31))
NOT_A_NUMBER = tl.constexpr(0x7F800001)
"""Key of every NaN: above that of infinity."""

ABSENT = tl.constexpr(-0x7F800001)
"""Key of what cannot be chosen: below that of minus infinity."""

GUESSES = tl.constexpr(12)
"""Steps of the search that guess from values and counts, before it halves the keys between its bounds."""


@triton.jit  # type: ignore[untyped-decorator]
def ordered_bits(bits: tl.tensor) -> tl.tensor:
    """Maps the bits of float32 (as int32) to integers of the same order, and these back: -0 and 0 are both 0."""
    return tl.where(bits < 0, SIGN - bits, bits)


@triton.jit  # type: ignore[untyped-decorator]
def order_preserving(similarity: tl.tensor) -> tl.tensor:
    """Keys (int32) in the order of float32 numbers: -0 equals 0, NaN is the largest."""
    key = ordered_bits(similarity.to(tl.int32, bitcast=True))
    return tl.where(similarity == similarity, key, NOT_A_NUMBER)


@triton.jit  # type: ignore[untyped-decorator]
def region_size(
    window: tl.tensor,
    token: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
) -> tl.tensor:
    """Number of tokens of the window in each token's region: the seam cuts the last row and column of windows."""
    bottom, last = at_ends(window, height, width, window_size)
    before: tl.constexpr = window_size - shift_size
    down = tl.where(token // window_size < before, before, shift_size)
    right = tl.where(token % window_size < before, before, shift_size)
    return tl.where(bottom, down, window_size) * tl.where(last, right, window_size)


@triton.jit  # type: ignore[untyped-decorator]
def count_at_least(blocks: tl.tuple, threshold: tl.tensor) -> tl.tensor:
    """Number of entries of every row that are not below its threshold; their differences must fit into int32.

    The sign of a difference marks what is below: two instructions an entry, and one reduction for all blocks.
    """
    below = (blocks[0] - threshold[:, None]).to(tl.uint32, bitcast=True) >> 31
    for index in tl.static_range(1, len(blocks)):
        below += (blocks[index] - threshold[:, None]).to(tl.uint32, bitcast=True) >> 31
    return len(blocks) * blocks[0].shape[1] - tl.sum(below.to(tl.int32, bitcast=True), 1)


@triton.jit  # type: ignore[untyped-decorator]
def count_tied_before(blocks: tl.tuple, value: tl.tensor, bound: tl.tensor) -> tl.tensor:
    """Number of entries of every row that equal its value and have an index below its bound."""
    tied = ((blocks[0] == value[:, None]) & (tl.arange(0, blocks[0].shape[1])[None, :] < bound[:, None])).to(tl.int32)
    for index in tl.static_range(1, len(blocks)):
        column = index * blocks[0].shape[1] + tl.arange(0, blocks[0].shape[1])
        tied += ((blocks[index] == value[:, None]) & (column[None, :] < bound[:, None])).to(tl.int32)
    return tl.sum(tied, 1)


@triton.jit  # type: ignore[untyped-decorator]
def guess(low: tl.tensor, high: tl.tensor, at_low: tl.tensor, at_high: tl.tensor, wanted: tl.tensor) -> tl.tensor:
    """The key where a row's count would be `wanted` if values were spread evenly between two keys: any key at worst."""
    least = ordered_bits(low).to(tl.float32, bitcast=True)
    most = ordered_bits(high).to(tl.float32, bitcast=True)
    share = (at_low - wanted).to(tl.float32) / (at_low - at_high).to(tl.float32)
    return order_preserving(least + (most - least) * share)


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def key_semantic_dictionary_kernel(
    x: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    top_k: tl.constexpr,
    channels: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """Marks the K tokens of a window most similar to each token (SemanIR, arXiv 2405.20008), 16 a word.

    Similarities are sums in float32, `step` channels at a time; their keys, int32 in the same order, stay in registers.
    For every row two keys close in on the K-th largest, until one of them has exactly K keys not below it or they are
    neighbours; then keys that equal the lower one are taken by index. Tokens of the row's region come first: where
    there are fewer than K, all of them are in, and the rest is chosen among the other regions.
    """
    tokens: tl.constexpr = window_size * window_size
    blocks_across: tl.constexpr = (tokens + columns - 1) // columns
    count: tl.constexpr = min(top_k, tokens)
    program = tl.program_id(0)
    window = program // tl.cdiv(tokens, rows)
    token = (program % tl.cdiv(tokens, rows)) * rows + tl.arange(0, rows)
    pixel = pixels(window, token, height, width, window_size, shift_size)[:, None] * channels
    seam = at_seam(window, height, width, window_size) if shift_size > 0 else False
    side = sides(window, token, height, width, window_size, shift_size)

    wanted = tl.full([rows], count, tl.int32)
    at_low = tl.full([rows], tokens, tl.int32)
    within = tl.full([rows], 1, tl.int1)
    if shift_size > 0:
        same = region_size(window, token, height, width, window_size, shift_size)
        within = same >= count
        wanted = tl.where(within, wanted, count - same)
        at_low = tl.where(within, same, tokens - same)

    candidates = ()
    low = tl.full([rows], NOT_A_NUMBER, tl.int32)
    high = tl.full([rows], ABSENT, tl.int32)
    for index in tl.static_range(blocks_across):
        other = index * columns + tl.arange(0, columns)
        place = pixels(window, other, height, width, window_size, shift_size)[:, None] * channels
        similarity = tl.zeros([rows, columns], tl.float32)
        for start in range(0, channels, step):
            channel = start + tl.arange(0, step)[None, :]
            inside = channel < channels
            own = tl.load(x + pixel + channel, mask=(token < tokens)[:, None] & inside, other=0.0)
            theirs = tl.load(x + place + channel, mask=(other < tokens)[:, None] & inside, other=0.0)
            similarity = tl.dot(own, tl.trans(theirs), similarity, input_precision="tf32x3")
        key = order_preserving(similarity)
        high = tl.maximum(high, tl.max(key, 1))
        low = tl.minimum(low, tl.min(key, 1))
        if seam:
            their_side = sides(window, other, height, width, window_size, shift_size)
            key = tl.where((side[:, None] == their_side[None, :]) == within[:, None], key, ABSENT)
        if tokens % columns != 0:
            key = tl.where((other < tokens)[None, :], key, ABSENT)
        candidates = candidates + (key,)  # type: ignore[assignment]  # noqa: RUF005

    # Always: count(>= low) = at_low >= wanted > count(>= high) = at_high. First, the sign is found: then all keys
    # between the bounds, and those clipped to them, differ by less than 2^31.
    high += 1
    at_high = tl.zeros([rows], tl.int32)
    positive = count_at_least(candidates, tl.zeros([rows], tl.int32))
    up = positive >= wanted
    at_low = tl.where(up & (low < 0), positive, at_low)
    at_high = tl.where(up | (high <= 0), at_high, positive)
    low = tl.where(up, tl.maximum(low, 0), low)
    high = tl.where(up, high, tl.minimum(high, 0))
    clipped = ()
    for index in tl.static_range(blocks_across):
        key = tl.minimum(tl.maximum(candidates[index], low[:, None] - 1), high[:, None])
        clipped = clipped + (key,)  # type: ignore[assignment]  # noqa: RUF005
    steps = 0
    is_open = (token < tokens) & (at_low != wanted) & (low + 1 < high)
    while tl.max(is_open.to(tl.int32), 0) > 0:
        if steps >= GUESSES:
            trial = low + (high - low) // 2
        elif steps % 2 == 0:
            trial = guess(low, high, at_low, at_high, wanted)
        else:
            trial = guess(
                low, high, tl.full([rows], 2, tl.int32), tl.zeros([rows], tl.int32), tl.full([rows], 1, tl.int32)
            )
        trial = tl.minimum(tl.maximum(trial, low + 1), high - 1)
        found = count_at_least(clipped, trial)
        up = is_open & (found >= wanted)
        down = is_open & (found < wanted)
        low = tl.where(up, trial, low)
        at_low = tl.where(up, found, at_low)
        high = tl.where(down, trial, high)
        at_high = tl.where(down, found, at_high)
        is_open = is_open & (at_low != wanted) & (low + 1 < high)
        steps += 1

    bound = tl.full([rows], tokens, tl.int32)
    ties = (token < tokens) & (at_low > wanted)
    if tl.max(ties.to(tl.int32), 0) > 0:  # where the bounds are neighbours: of the keys equal to low, the first
        missing = wanted - at_high
        bound = tl.zeros([rows], tl.int32)
        for bit in range(11):
            trial = bound + (1024 >> bit)
            bound = tl.where(count_tied_before(clipped, low, trial) > missing, bound, trial)
        bound = tl.where(ties, bound, tokens)

    row_words: tl.constexpr = (tokens + BITS - 1) // BITS
    power = 1 << tl.arange(0, BITS)
    for index in tl.static_range(blocks_across):
        other = index * columns + tl.arange(0, columns)
        key = clipped[index]
        chosen = ((key > low[:, None]) | ((key == low[:, None]) & (other[None, :] < bound[:, None]))).to(tl.int32)
        if seam:
            their_side = sides(window, other, height, width, window_size, shift_size)
            same_side = (side[:, None] == their_side[None, :]) & (other < tokens)[None, :]
            chosen = tl.where(same_side & (within == 0)[:, None], 1, chosen)
        bits = tl.reshape(chosen, [rows, columns // BITS, BITS])
        packed = tl.sum(bits * power[None, None, :], 2)
        word = index * (columns // BITS) + tl.arange(0, columns // BITS)
        row = (window.to(tl.int64) * tokens + token)[:, None] * row_words
        mask = (token < tokens)[:, None] & (word < row_words)[None, :]
        tl.store(output + row + word[None, :], packed, mask=mask)


def launch(shapes: Sequence[Shape], attributes: Mapping[str, int], dtype: str, tactic: int = 1) -> Launch:
    """How to start the kernel.

    Args:
        shapes: The shape of x ``[B, H, W, C]``.
        attributes: window_size, shift_size, top_k.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tactic: Which of `TACTICS`, from 1.

    Raises:
        NoKernel: The kernel cannot be started for these shapes.
    """
    rows, columns, num_warps, num_stages = pick(NAME, TACTICS, tactic)
    if dtype == "float32":
        rows, columns, num_warps, num_stages = FLOAT32
    window_size, top_k = attributes["window_size"], attributes["top_k"]
    (image,) = shapes
    check_image(NAME, image, window_size, attributes["shift_size"], dtype)
    tokens = window_size * window_size
    if tokens > MAX_TOKENS:
        raise NoKernel(f"{NAME}: the kernel takes windows of {MAX_TOKENS} tokens at most, got {tokens}")
    if top_k < 1:
        raise NoKernel(f"{NAME}: top_k must be at least 1, got {top_k}")
    if tokens <= SMALL_TOKENS:
        columns, num_stages = SMALL[rows]
        num_warps = max(1, rows * block_size(tokens) // (32 * SMALL_SHARE))
    rows, columns = min(rows, block_size(tokens)), min(columns, block_size(tokens))
    return Launch(
        kernel=key_semantic_dictionary_kernel,
        constants={
            "window_size": window_size,
            "shift_size": attributes["shift_size"],
            "top_k": top_k,
            "channels": image[3],
            "rows": rows,
            "columns": columns,
            "step": FLOAT32_STEP if dtype == "float32" else 32,
        },
        window_size=window_size,
        programs=-(-tokens // rows),
        num_warps=num_warps,
        num_stages=num_stages,
    )


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    batch, height, width, _ = shapes[0]
    window_size = attributes["window_size"]
    tokens = window_size * window_size
    return batch * (height // window_size) * (width // window_size), tokens, words(tokens)
