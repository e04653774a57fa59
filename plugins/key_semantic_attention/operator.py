"""``torch.ops.agileir.key_semantic_attention``: attention restricted to each token's dictionary row (SemanIR)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attention import attention, attention_gradients
from ..checks import check_heads, check_shape, check_table, check_tensors, check_window
from ..dispatch import register_cuda
from ..packing import words
from ..registry import DOMAIN
from . import NAME, OPERATOR

__all__ = ["key_semantic_attention"]


def _check(
    qkv: Tensor, dictionary: Tensor, bias_table: Tensor, window_size: int, shift_size: int, num_heads: int
) -> None:
    check_window(NAME, qkv, window_size, shift_size)
    check_tensors(NAME, qkv=qkv, bias_table=bias_table)
    check_heads(NAME, qkv.shape[-1], num_heads, parts=3)
    check_table(NAME, bias_table, window_size, num_heads)
    if dictionary.dtype != torch.int32:
        raise ValueError(f"{NAME}: dictionary must be int32, got {dictionary.dtype}")
    batch, height, width, _ = qkv.shape
    tokens = window_size * window_size
    windows = batch * (height // window_size) * (width // window_size)
    check_shape(NAME, "dictionary", dictionary, (windows, tokens, words(tokens)))


@torch.library.custom_op(f"{DOMAIN}::{NAME}", mutates_args=())
def key_semantic_attention(
    qkv: Tensor,
    dictionary: Tensor,
    bias_table: Tensor,
    window_size: int,
    shift_size: int,
    num_heads: int,
) -> Tensor:
    """Window attention of every token to its key-semantic dictionary (SemanIR, arXiv 2405.20008).

    As `shifted_window_attention`, but the logits of tokens outside the query's dictionary row are removed before the
    softmax. With ``K = N`` the two are equal.

    Args:
        qkv: ``[B, H, W, 3C]``, laid out q | k | v, each `num_heads` x d; H and W multiples of w.
        dictionary: int32 ``[n, N, ceil(N/16)]`` of `key_semantic_dictionary` with the same window and shift; every
            row holds at least one token.
        bias_table: ``[(2w-1)^2, num_heads]``.
        window_size: w >= 1.
        shift_size: s in 0..w-1.
        num_heads: Number of heads; divides C.

    Returns:
        ``[B, H, W, C]`` in the type of `qkv`.

    Raises:
        ValueError: A shape, type or argument does not fit; the message holds the numbers.
    """
    _check(qkv, dictionary, bias_table, window_size, shift_size, num_heads)
    return attention(qkv, bias_table, window_size, shift_size, num_heads, dictionary)


@key_semantic_attention.register_fake
def _(qkv: Tensor, *arguments: Any) -> Tensor:
    _check(qkv, *arguments)
    batch, height, width, triple = qkv.shape
    return qkv.new_empty(batch, height, width, triple // 3)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.window_size, ctx.shift_size, ctx.num_heads = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    qkv, dictionary, bias_table = ctx.saved_tensors
    arguments = (ctx.window_size, ctx.shift_size, ctx.num_heads)
    qkv_gradient, table_gradient = attention_gradients(gradient, qkv, bias_table, *arguments, dictionary)
    return qkv_gradient, None, table_gradient, None, None, None


key_semantic_attention.register_autograd(_backward, setup_context=_setup)
register_cuda(key_semantic_attention, OPERATOR)
