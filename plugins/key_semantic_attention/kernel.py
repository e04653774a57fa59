"""The Triton kernel of KeySemanticAttention: dense tiles of logits, masked by the dictionary, streamed on chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import triton
import triton.language as tl

from ..attention_kernel import attend_block
from ..launch import UNKNOWN, Launch, NoKernel, Shape, attention_launch, pick
from ..launch import attention_output_shape as output_shape
from ..packing import words
from . import NAME

__all__ = ["OUTPUT_TYPE", "SCRATCH", "TACTICS", "key_semantic_attention_kernel", "launch", "output_shape"]

OUTPUT_TYPE: str | None = None
"""Type of the output; None where it is the image's."""

SCRATCH = False
"""Whether the kernel takes scratch memory."""

TACTICS = ((64, 64, 4), (64, 32, 4), (16, 64, 4))
"""Queries and keys of a block (fewer where a window has fewer tokens), and warps.

The last is for small images: four times the programs, whose warps share the keys.
"""

FLOAT32_KEYS = 32
"""Keys of a float32 block at most: more, with what their dictionary words unpack to, would not fit into registers."""


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
    in_rows: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
) -> None:
    """Window attention of every token to its dictionary row (SemanIR, arXiv 2405.20008), see `attend_block`."""
    attend_block(
        qkv,
        dictionary,
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
        shapes: Shapes of qkv ``[B, H, W, 3C]``, dictionary ``[n, N, ceil(N/16)]`` and bias_table
            ``[(2w-1)^2, heads]``.
        attributes: window_size, shift_size, num_heads.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        tactic: Which of `TACTICS`, from 1.

    Raises:
        NoKernel: The kernel cannot be started for these shapes.
    """
    queries, keys, num_warps = pick(NAME, TACTICS, tactic)
    if dtype == "float32":
        keys = min(keys, FLOAT32_KEYS)
    blocks = queries, keys, num_warps
    made = attention_launch(NAME, key_semantic_attention_kernel, shapes, attributes, dtype, blocks)
    image, dictionary = tuple(shapes[0]), tuple(shapes[1])
    tokens = made.window_size**2
    windows = UNKNOWN
    if UNKNOWN not in image[:3]:
        windows = image[0] * image[1] * image[2] // tokens
    fits = len(dictionary) == 3 and dictionary[1:] == (tokens, words(tokens))
    if not fits or (UNKNOWN not in (windows, dictionary[0]) and dictionary[0] != windows):
        raise NoKernel(f"{NAME}: dictionary must be [{windows}, {tokens}, {words(tokens)}], got {list(dictionary)}")
    return made
