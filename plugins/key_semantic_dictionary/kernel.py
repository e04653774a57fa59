"""The Triton kernel of KeySemanticDictionary: the similarities of a block of rows stay in registers, K are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import FLOAT32_STEP, pixels, regions
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

TACTICS = ((32, 256, 8), (16, 256, 4), (32, 128, 8))
"""Rows and columns of a block of similarities (fewer where a window has fewer tokens), and warps."""

MAX_TOKENS = 1024
"""Tokens of a window: a whole row of similarities is held in registers."""

BITS = tl.constexpr(WORD_BITS)


@triton.jit  # type: ignore[untyped-decorator]
def order_preserving(similarity: tl.tensor) -> tl.tensor:
    """Maps float32 to uint32 so that the order is kept: -0 equals 0, and no number maps to 0 (NaN is the largest)."""
    similarity = tl.where(similarity == 0.0, 0.0, similarity)
    bits = similarity.to(tl.uint32, bitcast=True)
    flipped = tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(similarity == similarity, flipped, 0xFFFFFFFF)


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
    rows = height // window_size
    columns = width // window_size
    place = window % (rows * columns)
    before: tl.constexpr = window_size - shift_size
    down = tl.where(token // window_size < before, before, shift_size)
    right = tl.where(token % window_size < before, before, shift_size)
    down = tl.where(place // columns == rows - 1, down, window_size)
    return down * tl.where(place % columns == columns - 1, right, window_size)


@triton.jit  # type: ignore[untyped-decorator]
def count_at_least(blocks: tl.tuple, threshold: tl.tensor) -> tl.tensor:
    """Number of entries of every row that are not below its threshold."""
    count = tl.zeros_like(threshold).to(tl.int32)
    for index in tl.static_range(len(blocks)):
        count += tl.sum((blocks[index] >= threshold[:, None]).to(tl.int32), 1)
    return count


@triton.jit  # type: ignore[untyped-decorator]
def count_tied_before(blocks: tl.tuple, value: tl.tensor, bound: tl.tensor) -> tl.tensor:
    """Number of entries of every row that equal its value and have an index below its bound."""
    count = tl.zeros_like(bound)
    for index in tl.static_range(len(blocks)):
        block = blocks[index]
        column = index * block.shape[1] + tl.arange(0, block.shape[1])
        tied = (block == value[:, None]) & (column[None, :] < bound[:, None])
        count += tl.sum(tied.to(tl.int32), 1)
    return count


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

    Similarities are sums in float32, `step` channels at a time. Their order-preserving integers are compared and
    counted: 32 steps of bisection find the K-th largest value of a row exactly, further steps the index up to which
    its ties belong to the set. Tokens of the row's region come first: where there are fewer than K, all of them are
    in, and the rest is chosen among the other regions.
    """
    tokens: tl.constexpr = window_size * window_size
    blocks_across: tl.constexpr = (tokens + columns - 1) // columns
    count: tl.constexpr = min(top_k, tokens)
    program = tl.program_id(0)
    window = program // tl.cdiv(tokens, rows)
    token = (program % tl.cdiv(tokens, rows)) * rows + tl.arange(0, rows)
    pixel = pixels(window, token, height, width, window_size, shift_size)[:, None] * channels
    region = regions(window, token, height, width, window_size, shift_size)

    wanted = tl.full([rows], count, tl.int32)
    if shift_size > 0:
        same = region_size(window, token, height, width, window_size, shift_size)
        within = same >= count
        wanted = tl.where(within, wanted, count - same)

    candidates = ()
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
        eligible = (other < tokens)[None, :]
        if shift_size > 0:
            theirs_region = regions(window, other, height, width, window_size, shift_size)
            same_region = region[:, None] == theirs_region[None, :]
            eligible = eligible & (same_region == within[:, None])
        key = tl.where(eligible, order_preserving(similarity), 0)
        candidates = candidates + (key,)  # type: ignore[assignment]  # noqa: RUF005

    threshold = tl.zeros([rows], tl.uint32)
    for bit in range(32):
        trial = threshold | (tl.full([rows], 0x80000000, tl.uint32) >> bit)
        threshold = tl.where(count_at_least(candidates, trial) >= wanted, trial, threshold)

    missing = wanted - count_at_least(candidates, threshold + 1)
    missing = tl.where(threshold == 0xFFFFFFFF, wanted, missing)
    bound = tl.zeros([rows], tl.int32)
    for bit in range(11):
        trial = bound + (1024 >> bit)
        reached = count_tied_before(candidates, threshold, trial) > missing
        bound = tl.where(reached, bound, trial)

    row_words: tl.constexpr = (tokens + BITS - 1) // BITS
    power = 1 << tl.arange(0, BITS)
    for index in tl.static_range(blocks_across):
        other = index * columns + tl.arange(0, columns)
        chosen = candidates[index] > threshold[:, None]
        tied = candidates[index] == threshold[:, None]
        chosen = chosen | (tied & (other[None, :] < bound[:, None]))
        if shift_size > 0:
            inside = (other < tokens)[None, :] & (within == 0)[:, None]
            chosen = chosen | (inside & (candidates[index] == 0))
        bits = tl.reshape(chosen.to(tl.int32), [rows, columns // BITS, BITS])
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
    rows, columns, num_warps = pick(NAME, TACTICS, tactic)
    window_size, top_k = attributes["window_size"], attributes["top_k"]
    (image,) = shapes
    check_image(NAME, image, window_size, attributes["shift_size"], dtype)
    tokens = window_size * window_size
    if tokens > MAX_TOKENS:
        raise NoKernel(f"{NAME}: the kernel takes windows of {MAX_TOKENS} tokens at most, got {tokens}")
    if top_k < 1:
        raise NoKernel(f"{NAME}: top_k must be at least 1, got {top_k}")
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
    )


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    batch, height, width, _ = shapes[0]
    window_size = attributes["window_size"]
    tokens = window_size * window_size
    return batch * (height // window_size) * (width // window_size), tokens, words(tokens)
