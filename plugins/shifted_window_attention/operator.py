"""``torch.ops.agileir.shifted_window_attention``: (shifted) window attention of SwinIR on an unshifted image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attention import attention, attention_gradients
from ..checks import check_heads, check_table, check_tensors, check_window
from ..dispatch import register_cuda
from ..registry import DOMAIN
from . import NAME, OPERATOR

__all__ = ["shifted_window_attention"]


def _check(qkv: Tensor, bias_table: Tensor, window_size: int, shift_size: int, num_heads: int) -> None:
    check_window(NAME, qkv, window_size, shift_size)
    check_tensors(NAME, qkv=qkv, bias_table=bias_table)
    check_heads(NAME, qkv.shape[-1], num_heads, parts=3)
    check_table(NAME, bias_table, window_size, num_heads)


@torch.library.custom_op(f"{DOMAIN}::{NAME}", mutates_args=())
def shifted_window_attention(
    qkv: Tensor, bias_table: Tensor, window_size: int, shift_size: int, num_heads: int
) -> Tensor:
    """Window attention with cyclic shift, on the unshifted image (Swin Transformer, arXiv 2103.14030, section 3.2).

    ``y = softmax(d^-0.5 q k^T + bias + mask) v`` within each window; roll, partition, mask and un-roll happen inside.

    Args:
        qkv: ``[B, H, W, 3C]``, laid out q | k | v, each `num_heads` x d; H and W multiples of w.
        bias_table: ``[(2w-1)^2, num_heads]``.
        window_size: w >= 1.
        shift_size: s in 0..w-1.
        num_heads: Number of heads; divides C.

    Returns:
        ``[B, H, W, C]`` in the type of `qkv`; logits, softmax and sums are float32 for half types.

    Raises:
        ValueError: A shape, type or argument does not fit; the message holds the numbers.
    """
    _check(qkv, bias_table, window_size, shift_size, num_heads)
    return attention(qkv, bias_table, window_size, shift_size, num_heads)


@shifted_window_attention.register_fake
def _(qkv: Tensor, bias_table: Tensor, window_size: int, shift_size: int, num_heads: int) -> Tensor:
    _check(qkv, bias_table, window_size, shift_size, num_heads)
    batch, height, width, triple = qkv.shape
    return qkv.new_empty(batch, height, width, triple // 3)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.window_size, ctx.shift_size, ctx.num_heads = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    qkv, bias_table = ctx.saved_tensors
    gradients = attention_gradients(gradient, qkv, bias_table, ctx.window_size, ctx.shift_size, ctx.num_heads)
    return *gradients, None, None, None


shifted_window_attention.register_autograd(_backward, setup_context=_setup)
register_cuda(shifted_window_attention, OPERATOR)
