"""Group shifted window attention with its convolutions, whose BatchNorms fold away (arXiv 2409.06206)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...plugins.group_shifted_window_attention.operator import (
    group_shifted_window_attention,
    plain,
    plain_cascade,
    window_images,
)
from ...plugins.windows import position_bias
from ..fusion import Linear, Surroundings
from ..layers import table_parameter

__all__ = ["ConvNorm", "GroupAttention"]

DEPTHWISE_KERNEL = 5


class ConvNorm(nn.Module):
    """A convolution with BatchNorm, or with a bias where the network has none.

    Args:
        conv: The convolution, without bias when `norm` is given.
        norm: Its BatchNorm, or None.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.c = conv
        if norm is not None:
            self.bn = norm

    def forward(self, x: Tensor) -> Tensor:
        """Channels-first ``[n, Cin, h, w]`` to ``[n, Cout, h, w]``, with batch statistics while training."""
        output: Tensor = self.c(x)
        return self.bn(output) if hasattr(self, "bn") else output

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight ``W g/sqrt(v+eps)`` and bias ``b - m g/sqrt(v+eps)``: the BatchNorm's running statistics folded in."""
        if not hasattr(self, "bn"):
            assert self.c.bias is not None
            return self.c.weight, self.c.bias
        norm = self.bn
        assert norm.running_var is not None and norm.running_mean is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.c.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def _conv_norm(channels_in: int, channels_out: int, kernel: int, groups: int, batch_norm: bool) -> ConvNorm:
    conv = nn.Conv2d(channels_in, channels_out, kernel, 1, kernel // 2, groups=groups, bias=not batch_norm)
    return ConvNorm(conv, nn.BatchNorm2d(channels_out) if batch_norm else None)


def _folded(module: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(module, ConvNorm)
    return module.folded()


class GroupConvolutions(nn.Module):
    """Projections, depthwise filters and output projection, under their released names."""

    def __init__(self, width: int, groups: int, key_dim: int, batch_norm: bool) -> None:
        super().__init__()
        each = width // groups
        self.qkvs = nn.ModuleList(_conv_norm(each, 2 * key_dim + each, 1, 1, batch_norm) for _ in range(groups))
        self.dws = nn.ModuleList(
            _conv_norm(key_dim, key_dim, DEPTHWISE_KERNEL, key_dim, batch_norm) for _ in range(groups)
        )
        self.proj = nn.Sequential(nn.ReLU(), _conv_norm(width, width, 1, 1, batch_norm))


class GroupAttention(nn.Module):
    """Group shifted window attention with ReLU and output projection (arXiv 2409.06206; released layout of weights).

    Args:
        width: Feature width C, a multiple of `groups`.
        groups: Number of groups G, one head each.
        key_dim: Width dk of queries and keys.
        window_size: Attention window.
        shift_size: Cyclic shift.
        batch_norm: Whether convolutions carry a BatchNorm (the released form) or a bias.
        bypassed: Return the input, as the authors' released code does.
    """

    def __init__(
        self,
        width: int,
        groups: int,
        key_dim: int,
        window_size: int,
        shift_size: int,
        *,
        batch_norm: bool = True,
        bypassed: bool = False,
    ) -> None:
        super().__init__()
        if groups < 1 or width % groups:
            raise ValueError(f"{width} channels do not divide into {groups} groups")
        self.window_size, self.shift_size, self.key_dim = window_size, shift_size, key_dim
        self.batch_norm, self.bypassed, self.use_operator = batch_norm, bypassed, True
        self.relative_position_bias_table = table_parameter(window_size, groups)
        self.groupatt = GroupConvolutions(width, groups, key_dim, batch_norm)
        self._frozen: tuple[str, ...] = ()

    def weights(self) -> tuple[Tensor, ...]:
        """The operator's four (qkv_weight, qkv_bias, q_dw_weight, q_dw_bias), then proj_weight and proj_bias."""
        if self._frozen:
            return tuple(getattr(self, name) for name in self._frozen)
        qkv = [_folded(module) for module in self.groupatt.qkvs]
        depthwise = [_folded(module) for module in self.groupatt.dws]
        projection, bias = _folded(self.groupatt.proj[1])
        return (
            torch.stack([weight.flatten(1) for weight, _ in qkv]),
            torch.stack([bias for _, bias in qkv]),
            torch.stack([weight[:, 0] for weight, _ in depthwise]),
            torch.stack([bias for _, bias in depthwise]),
            projection.flatten(1),
            bias,
        )

    def freeze(self) -> None:
        """Folds the BatchNorms for good: the stacked operator weights replace the separate convolutions."""
        if self._frozen:
            return
        names = ("qkv_weight", "qkv_bias", "q_dw_weight", "q_dw_bias", "proj_weight", "proj_bias")
        for name, weight in zip(names, self.weights(), strict=True):
            self.register_buffer(name, weight.detach().clone().contiguous())
        self._frozen = names
        del self.groupatt

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same; H and W multiples of the window."""
        if self.bypassed:
            return x
        if self.training and self.batch_norm and not self._frozen:
            return self._with_batch_statistics(x)
        *_, projection, bias = weights = self.weights()
        return nn.functional.linear(torch.relu(self._attend(x, weights)), projection, bias)

    def attend(self, x: Tensor, *context: Tensor) -> Tensor:
        """Attention of ``[B, H, W, C]``, before ReLU and output projection; there is no context."""
        assert not context
        return self._attend(x, self.weights())

    def _attend(self, x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
        inputs = (*weights[:-2], self.relative_position_bias_table)
        operator: Callable[..., Tensor] = group_shifted_window_attention if self.use_operator else plain
        return operator(x, *(w.to(x.dtype) for w in inputs), self.window_size, self.shift_size)

    def surroundings(self) -> Surroundings | None:
        """See `Fusable.surroundings`; there are none before BatchNorms are folded."""
        if self.bypassed or not self._frozen:
            return None
        return Surroundings(None, Linear(self.get_buffer("proj_weight"), self.get_buffer("proj_bias")), rectified=True)

    def _with_batch_statistics(self, x: Tensor) -> Tensor:
        """Training with BatchNorm: statistics of the batch are needed between projection and attention."""
        modules, bias = self.groupatt, position_bias(self.relative_position_bias_table, self.window_size)
        groups = [_TrainedGroup(*each) for each in zip(modules.qkvs, modules.dws, bias, strict=True)]
        y = plain_cascade(x, groups, self.window_size, self.shift_size)
        output: Tensor = modules.proj(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return output


class _TrainedGroup(NamedTuple):
    """A group of the cascade whose convolutions normalise over the batch: of q, k and v, of q, and its bias."""

    qkv: nn.Module
    depthwise: nn.Module
    bias: Tensor

    def project(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of ``[B, nW, N, Cg]``."""
        value_dim = inputs.shape[-1]
        projected = self.qkv(window_images(inputs))
        key_dim = (projected.shape[1] - value_dim) // 2
        query, key, value = projected.split([key_dim, key_dim, value_dim], dim=1)
        rows = (part.flatten(2).transpose(1, 2) for part in (self.depthwise(query), key, value))
        query, key, value = (part.unflatten(0, inputs.shape[:-2]) for part in rows)
        return query, key, value
