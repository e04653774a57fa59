"""The Triton kernel of ShiftedWindowAttention: one program for a block of queries of one head of one window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl

from ..blocks import LOWEST, accumulate, pixels, position_bias, regions, same_region_or_masked
from ..launch import Launch, Shape, attention_launch, pick

__all__ = ["OUTPUT_TYPE", "TACTICS", "launch", "output_shape", "shifted_window_attention_kernel"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

TACTICS = ((64, 64, 4), (64, 32, 4), (128, 32, 8))
"""Queries and keys of a block (fewer where a window has fewer tokens), and warps."""


@triton.jit(do_not_specialize=["height", "width"])  # type: ignore[untyped-decorator]
def shifted_window_attention_kernel(
    qkv: tl.tensor,
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
    """``softmax(d^-0.5 q k^T + bias + mask) v``, roll, partition and reverse by address (arXiv 2103.14030, 3.2).

    `lanes` is `head_width` padded to a power of two; programs run head by head, then query blocks, then windows.
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
        if not full:
            logits = tl.where((key_token < tokens)[None, :], logits, float("-inf"))
        result, top, total = accumulate(logits, value, result, top, total)

    result = result / total[:, None]
    tl.store(output + query_pixel * channels + part, result.to(output.dtype.element_ty), mask=query_mask)


def launch(shapes: Sequence[Shape], attributes: Mapping[str, int], dtype: str, tactic: int = 1) -> Launch:
    """How to start the kernel.

    Args:
        shapes: Shapes of qkv ``[B, H, W, 3C]`` and bias_table ``[(2w-1)^2, heads]``.
        attributes: window_size, shift_size, num_heads.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tactic: Which of `TACTICS`, from 1.

    Raises:
        ValueError: The kernel cannot be started for these shapes.
    """
    operator = "shifted_window_attention"
    kernel, blocks = shifted_window_attention_kernel, pick(operator, TACTICS, tactic)
    return attention_launch(operator, kernel, shapes, attributes, dtype, blocks)


def output_shape(shapes: Sequence[Sequence[Any]], attributes: Mapping[str, int]) -> tuple[Any, ...]:
    """Shape of the output, of numbers or of TensorRT's shape expressions."""
    del attributes
    batch, height, width, triple = shapes[0]
    return batch, height, width, triple // 3
