"""The Triton kernel of KeySemanticAttention: dense tiles of logits, masked by the dictionary, streamed on chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import LOWEST, accumulate, pixels, position_bias, regions, same_region_or_masked
from ..launch import UNKNOWN, Launch, Shape, attention_launch, pick
from ..packing import WORD_BITS, words

__all__ = ["OUTPUT_TYPE", "TACTICS", "key_semantic_attention_kernel", "launch", "output_shape"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

TACTICS = ((64, 32, 4), (128, 32, 8), (64, 64, 8))
"""Queries and keys of a block (fewer where a window has fewer tokens), and warps."""

FLOAT32_KEYS = 32
"""Keys of a float32 block at most: more, with what their dictionary words unpack to, would not fit into registers."""

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
    """Whether queries attend to keys ``start .. start + keys - 1``: a block of the dictionary, unpacked."""
    row_words: tl.constexpr = (tokens + BITS - 1) // BITS
    word = start // BITS + tl.arange(0, keys // BITS)
    row = (window.to(tl.int64) * tokens + query)[:, None] * row_words
    mask = (query < tokens)[:, None] & (word < row_words)[None, :]
    packed = tl.load(dictionary + row + word[None, :], mask=mask, other=0)
    bits = (packed[:, :, None] >> tl.arange(0, BITS)[None, None, :]) & 1
    return tl.reshape(bits.to(tl.int8), [queries, keys]) != 0


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def key_semantic_attention_kernel(
    qkv: tl.tensor,
    dictionary: tl.tensor,
    bias_table: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    output: tl.tensor,
    window_size: tl.constexpr,
    shift_size: tl.constexpr,
    heads: tl.constexpr,
    head_width: tl.constexpr,
    lanes: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
) -> None:
    """Window attention of every token to its dictionary row (SemanIR, arXiv 2405.20008); others have logit -inf.

    `lanes` is `head_width` padded to a power of two; programs run head by head, then query blocks, then windows.
    A dictionary names no token beyond the window, so padding lanes of keys need no further mask.
    """
    tokens: tl.constexpr = window_size * window_size
    channels: tl.constexpr = heads * head_width
    full: tl.constexpr = tokens % queries == 0 and tokens % keys == 0
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
    query_region = regions(window, query_token, height, width, window_size, shift_size)

    result = tl.zeros([queries, lanes], tl.float32)
    top = tl.full([queries], LOWEST, tl.float32)
    total = tl.zeros([queries], tl.float32)
    for start in range(0, tokens, keys):
        key_token = start + tl.arange(0, keys)
        key_pixel = pixels(window, key_token, height, width, window_size, shift_size)[:, None]
        key_mask = (key_token < tokens)[:, None] & (lane < head_width)[None, :]
        address = qkv + key_pixel * (3 * channels) + part
        key = tl.load(address + channels, mask=key_mask, other=0.0)
        value = tl.load(address + 2 * channels, mask=key_mask, other=0.0)
        logits = tl.dot(query, tl.trans(key), input_precision="tf32x3") * head_width**-0.5
        logits += position_bias(bias_table, head, query_token, key_token, window_size, heads, full)
        if shift_size > 0:
            key_region = regions(window, key_token, height, width, window_size, shift_size)
            logits = same_region_or_masked(logits, query_region, key_region)
        allowed = attended(dictionary, window, query_token, start, tokens, queries, keys)
        logits = tl.where(allowed, logits, float("-inf"))
        result, top, total = accumulate(logits, value, result, top, total)

    result = result / total[:, None]
    tl.store(output + query_pixel * channels + part, result.to(output.dtype.element_ty), mask=query_mask)


def launch(shapes: Sequence[Shape], attributes: Mapping[str, int], dtype: str, tactic: int = 1) -> Launch:
    """How to start the kernel.

    Args:
        shapes: Shapes of qkv ``[B, H, W, 3C]``, dictionary ``[n, N, ceil(N/16)]`` and bias_table
            ``[(2w-1)^2, heads]``.
        attributes: window_size, shift_size, num_heads.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tactic: Which of `TACTICS`, from 1.

    Raises:
        ValueError: The kernel cannot be started for these shapes.
    """
    operator = "key_semantic_attention"
    queries, keys, num_warps = pick(operator, TACTICS, tactic)
    if dtype == "float32":
        keys = min(keys, FLOAT32_KEYS)
    blocks = queries, keys, num_warps
    made = attention_launch(operator, key_semantic_attention_kernel, shapes, attributes, dtype, blocks)
    image, dictionary = tuple(shapes[0]), tuple(shapes[1])
    tokens = made.window_size**2
    windows = UNKNOWN
    if UNKNOWN not in image[:3]:
        windows = image[0] * image[1] * image[2] // tokens
    fits = len(dictionary) == 3 and dictionary[1:] == (tokens, words(tokens))
    if not fits or (UNKNOWN not in (windows, dictionary[0]) and dictionary[0] != windows):
        raise ValueError(
            f"{operator}: dictionary must be [{windows}, {tokens}, {words(tokens)}], got {list(dictionary)}"
        )
    return made


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    del attributes
    batch, height, width, triple = shapes[0]
    return batch, height, width, triple // 3
