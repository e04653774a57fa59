"""Multi-head window attention over an image, forward and recomputed backward, with or without a dictionary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .packing import unpack
from .windows import (
    PassMasks,
    attend,
    attend_without_logits,
    compute_dtype,
    from_windows,
    position_bias,
    recompute_gradients,
    shift_mask,
    to_windows,
    window_slices,
)

__all__ = ["Attend", "attend_windows", "attention", "attention_gradients", "plain_attention", "restrict"]


Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def attend_windows(qkv: Tensor, bias: Tensor, mask: Tensor | None, num_heads: int, function: Attend = attend) -> Tensor:
    """Attention inside windows.

    Args:
        qkv: ``[..., N, 3C]``, q | k | v, each `num_heads` x d.
        bias: ``[heads, N, N]`` position bias.
        mask: ``[..., N, N]`` additive mask, or None.
        num_heads: Number of heads.
        function: `attend`, or `attend_without_logits` where no gradient is wanted.

    Returns:
        ``[..., N, C]``.
    """
    width = qkv.shape[-1] // (3 * num_heads)
    parts = qkv.unflatten(-1, (3, num_heads, width)).unbind(-3)
    query, key, value = (part.transpose(-3, -2) for part in parts)
    addend = bias if mask is None else bias + mask.unsqueeze(-3)
    output = function(query, key, value, addend, width**-0.5)
    return output.transpose(-3, -2).flatten(-2)


def restrict(selected: Tensor, mask: Tensor | None, like: Tensor) -> Tensor:
    """Additive mask that removes (-inf) all keys outside `selected` ``[..., N, N]`` and keeps the shift mask."""
    allowed = torch.zeros((), dtype=like.dtype, device=like.device) if mask is None else mask
    return torch.where(selected, allowed, float("-inf"))


def _masks(part: slice, shift_masks: PassMasks, dictionary: Tensor | None, bias: Tensor) -> Tensor | None:
    """Additive mask of the windows in `part`."""
    own = shift_masks(part)
    if dictionary is None:
        return own
    return restrict(unpack(dictionary[part], bias.shape[-1]), own, bias)


def attention(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: int,
    shift_size: int,
    num_heads: int,
    dictionary: Tensor | None = None,
) -> Tensor:
    """Forward pass of both attention operators, a bounded number of windows at a time."""
    _, height, width, _ = qkv.shape
    kind = compute_dtype(qkv)
    windows = to_windows(qkv, window_size, shift_size)
    bias = position_bias(bias_table.to(kind), window_size)
    shift_masks = PassMasks(qkv, window_size, shift_size)
    output = windows.new_empty(*windows.shape[:2], windows.shape[2] // 3)
    for part in window_slices(windows, num_heads, kind.itemsize):
        masks = _masks(part, shift_masks, dictionary, bias)
        output[part] = attend_windows(windows[part].to(kind), bias, masks, num_heads, attend_without_logits)
    return from_windows(output, height, width, window_size, shift_size)


def attention_gradients(
    gradient: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    window_size: int,
    shift_size: int,
    num_heads: int,
    dictionary: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of `attention` for `qkv` and `bias_table`, recomputed from its inputs."""
    _, height, width, _ = qkv.shape
    kind = compute_dtype(qkv)
    windows = to_windows(qkv, window_size, shift_size).to(kind)
    upstream = to_windows(gradient, window_size, shift_size).to(kind)
    bias = position_bias(bias_table.detach().to(kind), window_size)
    shift_masks = PassMasks(qkv, window_size, shift_size)
    windows_gradient, bias_gradient = torch.empty_like(windows), torch.zeros_like(bias)
    for part in window_slices(windows, num_heads, kind.itemsize):
        masks = _masks(part, shift_masks, dictionary, bias)
        windows_gradient[part], step = recompute_gradients(
            lambda q, b, m=masks: attend_windows(q, b, m, num_heads),
            (windows[part], bias),
            upstream[part],
        )
        bias_gradient += step
    (table_gradient,) = recompute_gradients(
        lambda table: position_bias(table, window_size), (bias_table.to(kind),), bias_gradient
    )
    qkv_gradient = from_windows(windows_gradient, height, width, window_size, shift_size)
    return qkv_gradient.to(qkv.dtype), table_gradient.to(bias_table.dtype)


def plain_attention(
    qkv: Tensor,
    bias_table: Tensor,
    window_size: int,
    shift_size: int,
    num_heads: int,
    selected: Tensor | None = None,
) -> Tensor:
    """`attention` in one pass of ordinary torch functions: autograd and exporters see through it, logits are kept.

    `selected` is a boolean dictionary ``[B, nW, N, N]``.
    """
    _, height, width, _ = qkv.shape
    kind = compute_dtype(qkv)
    windows = to_windows(qkv, window_size, shift_size).to(kind)
    mask = shift_mask(height, width, window_size, shift_size, windows)
    if selected is not None:
        mask = restrict(selected, mask, windows)
    bias = position_bias(bias_table.to(kind), window_size)
    by_image = windows.unflatten(0, (qkv.shape[0], -1))
    output = attend_windows(by_image, bias, mask, num_heads).to(qkv.dtype)
    return from_windows(output, height, width, window_size, shift_size)
