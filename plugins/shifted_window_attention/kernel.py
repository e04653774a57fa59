"""The Triton kernel of ShiftedWindowAttention: one program for a block of queries of one head of one window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import triton
import triton.language as tl

from ..attention_kernel import attend_block
from ..launch import Launch, Shape, attention_launch, pick
from ..launch import attention_output_shape as output_shape
from . import NAME

__all__ = ["OUTPUT_TYPE", "SCRATCH", "TACTICS", "launch", "output_shape", "shifted_window_attention_kernel"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

SCRATCH = False
"""Whether the kernel takes scratch memory."""

TACTICS = ((64, 64, 4),)
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
    in_rows: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
) -> None:
    """Window attention, see `attend_block`."""
    attend_block(
        qkv,
        None,
        bias_table,
        height,
        width,
        output,
        window_size,
        shift_size,
        heads,
        head_width,
        lanes,
        in_rows,
        queries,
        keys,
    )


def launch(shapes: Sequence[Shape], attributes: Mapping[str, int], dtype: str, tactic: int = 1) -> Launch:
    """How to start the kernel.

    Args:
        shapes: Shapes of qkv ``[B, H, W, 3C]`` and bias_table ``[(2w-1)^2, heads]``.
        attributes: window_size, shift_size, num_heads.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tactic: Which of `TACTICS`, from 1.

    Raises:
        NoKernel: The kernel cannot be started for these shapes.
    """
    blocks = pick(NAME, TACTICS, tactic)
    return attention_launch(NAME, shifted_window_attention_kernel, shapes, attributes, dtype, blocks)
