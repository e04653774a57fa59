"""``torch.ops.agileir.group_shifted_window_attention``: AgileIR's cascaded group attention on an unshifted image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ..attention import Attend
from ..checks import check_shape, check_table, check_tensors, check_window
from ..dispatch import register_cuda
from ..registry import DOMAIN
from ..windows import (
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
from . import NAME, OPERATOR

__all__ = [
    "Group",
    "GroupWeights",
    "cascade",
    "group_shifted_window_attention",
    "plain",
    "plain_cascade",
    "window_images",
]


class Group(Protocol):
    """One group: what makes q, k and v of its tokens, and its position bias."""

    @property
    def bias(self) -> Tensor:
        """Position bias ``[N, N]``."""

    def project(self, inputs: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """Q and k ``[..., N, dk]`` and v ``[..., N, dv]`` of ``[..., N, Cg]``; q is filtered, but not scaled."""


class GroupWeights(NamedTuple):
    """A `Group`: projection ``[2dk+dv, Cg]`` and its bias, q filter ``[dk, kh, kw]`` and its bias, ``[N, N]`` bias."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    q_dw_weight: Tensor
    q_dw_bias: Tensor
    bias: Tensor

    def project(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Group`."""
        # whole numbers, also where the older ONNX exporter traces sizes as tensors
        key_dim, kernel_height, kernel_width = map(int, self.q_dw_weight.shape)
        projected = inputs @ self.qkv_weight.T + self.qkv_bias
        query, key, value = projected.split([key_dim, key_dim, projected.shape[-1] - 2 * key_dim], dim=-1)
        filtered = conv2d(
            window_images(query),
            self.q_dw_weight[:, None],
            self.q_dw_bias,
            padding=(kernel_height // 2, kernel_width // 2),
            groups=key_dim,
        )
        return filtered.flatten(2).transpose(1, 2).reshape(query.shape), key, value


def window_images(tokens: Tensor) -> Tensor:
    """Windows ``[..., N, C]`` as images ``[n, C, w, w]``."""
    side = round(int(tokens.shape[-2]) ** 0.5)
    return tokens.transpose(-2, -1).reshape(-1, tokens.shape[-1], side, side)


def attend_group(inputs: Tensor, group: Group, mask: Tensor | None, function: Attend = attend) -> Tensor:
    """One group inside windows: projection, depthwise convolution of q, attention.

    Args:
        inputs: ``[..., N, Cg]``, the group's channels plus the previous group's output.
        group: The group.
        mask: ``[..., N, N]`` additive mask, or None.
        function: `attend`, or `attend_without_logits` where no gradient is wanted.

    Returns:
        ``[..., N, dv]``.
    """
    query, key, value = group.project(inputs)
    scale = int(query.shape[-1]) ** -0.5
    addend = group.bias if mask is None else group.bias + mask
    query, key, value, addend = (part.unsqueeze(-3) for part in (query, key, value, addend))
    return function(query, key, value, addend, scale).squeeze(-3)


def group_weights(weights: Sequence[Tensor], window_size: int) -> Iterator[GroupWeights]:
    """The operator's weights (its tensors after x) group by group, in the type of accumulation."""
    *stacked, bias_table = (tensor.to(compute_dtype(tensor)) for tensor in weights)
    for group in zip(*stacked, position_bias(bias_table, window_size), strict=True):
        yield GroupWeights(*group)


def cascade(windows: Tensor, groups: Sequence[Group], mask: Tensor | None, function: Attend = attend) -> Tensor:
    """All groups inside windows, each fed with its channels plus the previous group's output: ``[..., N, C]``."""
    output: Tensor | None = None
    outputs = []
    for chunk, group in zip(windows.chunk(len(groups), -1), groups, strict=True):
        output = attend_group(chunk if output is None else chunk + output, group, mask, function)
        outputs.append(output)
    return torch.cat(outputs, -1)


def _check(x: Tensor, *arguments: Any) -> None:
    *weights, window_size, shift_size = arguments
    qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, bias_table = weights
    check_window(NAME, x, window_size, shift_size)
    check_tensors(NAME, x=x, **dict(zip(OPERATOR.inputs[1:], weights, strict=True)))
    if qkv_weight.dim() != 3 or q_dw_weight.dim() != 4:
        raise ValueError(
            f"{NAME}: qkv_weight must be [G, 2dk+dv, Cg] and q_dw_weight [G, dk, kh, kw], "
            f"got {tuple(qkv_weight.shape)} and {tuple(q_dw_weight.shape)}"
        )
    groups, rows, group_width = qkv_weight.shape
    _, key_dim, kernel_height, kernel_width = q_dw_weight.shape
    if x.shape[-1] != groups * group_width:
        raise ValueError(f"{NAME}: x has {x.shape[-1]} channels, qkv_weight expects {groups} groups of {group_width}")
    if kernel_height % 2 == 0 or kernel_width % 2 == 0:
        raise ValueError(f"{NAME}: the depthwise filter needs odd sizes, got {kernel_height}x{kernel_width}")
    if key_dim < 1 or rows != 2 * key_dim + group_width:
        raise ValueError(
            f"{NAME}: qkv_weight needs 2*dk + Cg rows (dk = {key_dim}, Cg = {group_width}: "
            f"{2 * key_dim + group_width}), got {rows}; the cascade needs dv = Cg"
        )
    check_shape(NAME, "qkv_bias", qkv_bias, (groups, rows))
    check_shape(NAME, "q_dw_weight", q_dw_weight, (groups, key_dim, kernel_height, kernel_width))
    check_shape(NAME, "q_dw_bias", q_dw_bias, (groups, key_dim))
    check_table(NAME, bias_table, window_size, groups)


def plain(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    q_dw_weight: Tensor,
    q_dw_bias: Tensor,
    bias_table: Tensor,
    window_size: int,
    shift_size: int,
) -> Tensor:
    """The operator written in ordinary torch functions: differentiable by autograd, exportable, keeps N x N logits."""
    weights = (qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, bias_table)
    groups = list(group_weights(weights, window_size))
    return plain_cascade(x.to(compute_dtype(x)), groups, window_size, shift_size).to(x.dtype)


def plain_cascade(x: Tensor, groups: Sequence[Group], window_size: int, shift_size: int) -> Tensor:
    """`plain` with groups of any kind, in the type of `x`."""
    _, height, width, _ = x.shape
    windows = to_windows(x, window_size, shift_size)
    mask = shift_mask(height, width, window_size, shift_size, windows)
    output = cascade(windows.unflatten(0, (x.shape[0], -1)), groups, mask)
    return from_windows(output, height, width, window_size, shift_size)


@torch.library.custom_op(f"{DOMAIN}::{NAME}", mutates_args=())
def group_shifted_window_attention(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    q_dw_weight: Tensor,
    q_dw_bias: Tensor,
    bias_table: Tensor,
    window_size: int,
    shift_size: int,
) -> Tensor:
    """Group shifted window attention with cascade (AgileIR, arXiv 2409.06206, as EfficientViT's cascaded groups).

    For every group g of a window, ``U_g = X_g + O_{g-1}``, ``q|k|v = U_g W_g^T + b_g``, q filtered by a depthwise
    convolution that pads with zeros at the window border, ``O_g = softmax(dk^-0.5 q k^T + bias_g + mask) v``.

    Args:
        x: ``[B, H, W, C]``; H and W multiples of w.
        qkv_weight: ``[G, 2*dk + dv, Cg]``, rows q, k, v; ``Cg = C/G``, ``dv = Cg``.
        qkv_bias: ``[G, 2*dk + dv]``.
        q_dw_weight: ``[G, dk, kh, kw]``, odd sizes.
        q_dw_bias: ``[G, dk]``.
        bias_table: ``[(2w-1)^2, G]``.
        window_size: w >= 1.
        shift_size: s in 0..w-1.

    Returns:
        ``[B, H, W, G*dv]``, the concatenated group outputs before ReLU and output projection.

    Raises:
        ValueError: A shape, type or argument does not fit; the message holds the numbers.
    """
    weights = (qkv_weight, qkv_bias, q_dw_weight, q_dw_bias, bias_table)
    _check(x, *weights, window_size, shift_size)
    _, height, width, _ = x.shape
    groups = list(group_weights(weights, window_size))
    kind = compute_dtype(x)
    windows = to_windows(x, window_size, shift_size)
    shift_masks = PassMasks(x, window_size, shift_size)
    output = windows.new_empty(windows.shape)
    for part in window_slices(windows, 1, kind.itemsize):
        masked = shift_masks(part)
        output[part] = cascade(windows[part].to(kind), groups, masked, attend_without_logits)
    return from_windows(output, height, width, window_size, shift_size)


@group_shifted_window_attention.register_fake
def _(x: Tensor, *arguments: Any) -> Tensor:
    _check(x, *arguments)
    return x.new_empty(x.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.window_size, ctx.shift_size = inputs
    ctx.save_for_backward(*tensors, output)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Recomputes group after group, from the last to the first; the saved output holds the cascade's O_{g-1}."""
    x, *weights, output = ctx.saved_tensors
    window_size, shift_size = ctx.window_size, ctx.shift_size
    _, height, width, _ = x.shape
    kind = compute_dtype(x)
    groups = list(group_weights(weights, window_size))
    inputs, outputs, upstream = (to_windows(image, window_size, shift_size).to(kind) for image in (x, output, gradient))
    shift_masks = PassMasks(x, window_size, shift_size)
    count = len(groups)
    x_gradient = torch.empty_like(inputs)
    group_gradients = [GroupWeights(*map(torch.zeros_like, group)) for group in groups]
    for part in window_slices(inputs, 1, kind.itemsize):
        chunks, previous, flows, sinks = (
            windows[part].chunk(count, -1) for windows in (inputs, outputs, upstream, x_gradient)
        )
        masked = shift_masks(part)
        carried: Tensor | None = None
        for index in reversed(range(count)):
            fed = chunks[index] if index == 0 else chunks[index] + previous[index - 1]
            flow = flows[index] if carried is None else flows[index] + carried
            carried, *steps = recompute_gradients(
                lambda u, *w, m=masked: attend_group(u, GroupWeights(*w), m),
                (fed, *groups[index]),
                flow,
            )
            sinks[index].copy_(carried)
            for total, step in zip(group_gradients[index], steps, strict=True):
                total += step
    *weight_gradients, bias_gradient = (torch.stack(parts) for parts in zip(*group_gradients, strict=True))
    table = weights[-1]
    (table_gradient,) = recompute_gradients(
        lambda leaf: position_bias(leaf, window_size), (table.to(kind),), bias_gradient
    )
    return (
        from_windows(x_gradient, height, width, window_size, shift_size).to(x.dtype),
        *(grad.to(weight.dtype) for grad, weight in zip(weight_gradients, weights, strict=False)),
        table_gradient.to(table.dtype),
        None,
        None,
    )


group_shifted_window_attention.register_autograd(_backward, setup_context=_setup)
register_cuda(group_shifted_window_attention, OPERATOR)
