"""Blocks of transformers as fused half blocks: when a block may be run so, and how.

A block that is not trained, on a CUDA device, does not have to be run layer by layer: `run_fused` computes it with the
kernels of `plugins.half_blocks`. Whatever wants to see or change the layers (training, gradients, tracing, compilers,
hooks, other classes in the place of a layer) gets the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..plugins import half_blocks
from ..plugins.dispatch import capable, type_name
from ..plugins.half_blocks import Fused
from ..plugins.launch import NoKernel

__all__ = ["Fusable", "Linear", "Surroundings", "linear_of", "run_fused"]


class Linear(NamedTuple):
    """Weight ``[out, in]`` and bias of a linear layer; the bias may be missing."""

    weight: Tensor
    bias: Tensor | None


class Surroundings(NamedTuple):
    """What stands around attention: layers that a block can fuse.

    Attributes:
        first: The projection before; None where attention takes the normalised features.
        last: The projection after.
        rectified: Whether a ReLU stands before the last.
        biases: Table ``[(2w-1)^2, heads]``, where attention within windows is all that lies between (no context).
    """

    first: Linear | None
    last: Linear
    rectified: bool = False
    biases: Tensor | None = None


@runtime_checkable
class Fusable(Protocol):
    """Attention that a block can fuse its other layers with."""

    use_operator: bool
    window_size: int
    shift_size: int

    def surroundings(self) -> Surroundings | None:
        """The layers before and after `attend`; None where they cannot be fused as they are."""

    def attend(self, x: Tensor, *context: Tensor) -> Tensor:
        """What lies between those layers."""


def linear_of(layer: nn.Linear) -> Linear:
    """Weight and bias of a layer."""
    return Linear(layer.weight, layer.bias)


_kept: WeakKeyDictionary[nn.Module, dict[str, tuple[Any, Fused]]] = WeakKeyDictionary()
"""Launches and packed weights of blocks, which copies and pickles of a block do not see."""


def fused_of(
    block: nn.Module, name: str, x: Tensor, tensors: Sequence[Tensor | None], make: Callable[[], Fused]
) -> Fused:
    """What `make` makes of tensors: kept with the block until one of them is changed or replaced.

    Tensors of the inference mode do not tell when they change: of those it is made anew every time.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.dtype != x.dtype or tensor.device != x.device for tensor in given):
        raise NoKernel("half blocks: features and weights differ in type or device")
    if any(tensor.is_inference() for tensor in given):
        return make()
    state = [(tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in given]
    entries = _kept.setdefault(block, {})
    known = entries.get(name)
    if known is None or known[0] != state:
        with torch.inference_mode(False), torch.no_grad():
            known = entries[name] = state, make()
    return known[1]


def usable(x: Tensor) -> bool:
    """Whether the kernels can run where a tensor lies."""
    return x.is_cuda and capable(x.device.index)


def layers_alone(block: nn.Module) -> bool:
    """Whether nobody listens to the block's layers, and all of them are the classes that the kernels stand for."""
    for module in block.modules():
        hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        if hooked or module._backward_pre_hooks or "forward" in module.__dict__ or module.training:
            return False
    norms = [block.get_submodule(name) for name in ("norm1", "norm2")]
    linears = [block.get_submodule(name) for name in ("mlp.fc1", "mlp.fc2")]
    activation = block.get_submodule("mlp.act")
    if not all(type(norm) is nn.LayerNorm and norm.weight is not None and norm.bias is not None for norm in norms):
        return False
    if not all(type(linear) is nn.Linear for linear in linears):
        return False
    if type(activation) is not nn.GELU or activation.approximate != "none":
        return False
    return all(type(parameter) is nn.Parameter for parameter in block.parameters())


def watched(block: nn.Module, x: Tensor, context: Sequence[Tensor]) -> bool:
    """Whether gradients, a compiler, a trace, autocast or a mode of PyTorch needs to see the layers."""
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled(x.device.type)
    ):
        return True
    if type(x) is not Tensor or _get_current_dispatch_mode() is not None:
        return True
    everything = (x, *context, *block.parameters())
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in everything)


def run_fused(block: Any, x: Tensor, *context: Tensor) -> Tensor | None:
    """A block of ``[B, H, W, C]`` by the fused kernels; None where its layers have to be run one by one.

    Args:
        block: Has norm1, attn, norm2 and mlp.
        x: Features.
        context: What the attention takes beside them.
    """
    if not usable(x) or watched(block, x, context):
        return None
    attention = block.attn
    if not isinstance(attention, Fusable) or not attention.use_operator or not layers_alone(block):
        return None
    around = attention.surroundings()
    if around is None:
        return None
    try:
        return _run(_Layers(block, x), attention, around, x, *context)
    except NoKernel:
        return None


class _Layers:
    """The fused parts of one block, for features of one type and width."""

    def __init__(self, block: Any, x: Tensor) -> None:
        self.block, self.x, self.kind, self.channels = block, x, type_name(x), x.shape[-1]
        norm1, norm2, mlp = block.norm1, block.norm2, block.mlp
        self.before, self.after = (norm1.weight, norm1.bias), (norm2.weight, norm2.bias)
        self.first, self.second = linear_of(mlp.fc1), linear_of(mlp.fc2)
        self.epsilons = norm1.eps, norm2.eps

    def norm(self) -> Fused:
        """``LN(x)``."""

        def make() -> Fused:
            launch = half_blocks.norm_launch(self.channels, self.kind, self.epsilons[0])
            return Fused(launch, half_blocks.pack_norm(*self.before))

        return fused_of(self.block, "norm", self.x, self.before, make)

    def norm_projection(self, linear: Linear) -> Fused:
        """``LN(x)``, projected."""

        def make() -> Fused:
            outputs = linear.weight.shape[0]
            launch = half_blocks.norm_projection_launch(self.channels, outputs, self.kind, self.epsilons[0])
            return Fused(launch, half_blocks.pack_norm_projection(*self.before, *linear))

        return fused_of(self.block, "projection", self.x, (*self.before, *linear), make)

    def window(self, attention: Fusable, around: Surroundings, biases: Tensor) -> Fused:
        """``x + attention(LN(x))`` with its projections."""
        assert around.first is not None
        first, last = around.first, around.last
        attributes = {
            "window_size": attention.window_size,
            "shift_size": attention.shift_size,
            "num_heads": biases.shape[1],
        }

        def make() -> Fused:
            launch = half_blocks.window_attention_launch(self.channels, attributes, self.kind, self.epsilons[0])
            weights = half_blocks.pack_window_attention(*self.before, first, last, biases, attention.window_size)
            return Fused(launch, weights)

        return fused_of(self.block, "window", self.x, (*self.before, *first, *last, biases), make)

    def tail(self, projection: Linear | None, rectified: bool = False) -> Fused:
        """The projection and its residual, if any, and the MLP's half block."""

        def make() -> Fused:
            launch = half_blocks.token_tail_launch(
                self.channels,
                self.first.weight.shape[0],
                self.kind,
                projected=projection is not None,
                rectified=rectified,
                epsilon=self.epsilons[1],
            )
            return Fused(launch, half_blocks.pack_token_tail(projection, *self.after, self.first, self.second))

        return fused_of(self.block, "tail", self.x, (*(projection or ()), *self.after, *self.first, *self.second), make)


def _run(layers: _Layers, attention: Fusable, around: Surroundings, x: Tensor, *context: Tensor) -> Tensor:
    if around.biases is not None:
        with suppress(NoKernel):
            window, tail = layers.window(attention, around, around.biases), layers.tail(None)
            y = half_blocks.start(window, [x])
            return half_blocks.start(tail, [y, y])
    tail = layers.tail(around.last, around.rectified)
    if around.first is None:
        given = half_blocks.start(layers.norm(), [x])
    else:
        given = half_blocks.start(layers.norm_projection(around.first), [x], around.first.weight.shape[0])
    return half_blocks.start(tail, [attention.attend(given, *context), x])
