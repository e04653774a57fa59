"""Changes of whole models: folding for inference, plain formulation, random weights."""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from .base import Restorer
from .layers import Block
from .registry import FAMILIES

__all__ = ["fold", "randomise", "use_operators"]

Network = TypeVar("Network", bound=Restorer)


@runtime_checkable
class Freezable(Protocol):
    """A module that can replace what inference does not need separately."""

    def freeze(self) -> None:
        """Folds in place, for good."""


def fold(model: Network) -> Network:
    """A copy for inference: BatchNorms folded into convolutions, position-bias MLPs evaluated; the original is kept."""
    folded = copy.deepcopy(model).eval()
    with torch.no_grad():
        for module in list(folded.modules()):
            if isinstance(module, Freezable):
                module.freeze()
    return folded.requires_grad_(False)


def use_operators(model: nn.Module, use: bool = True, *, fuse: bool = False) -> None:
    """Switches a model in place between the operators (default) and ordinary torch functions.

    Args:
        model: Any network of this package, or a part of one.
        use: Whether attention runs as operators.
        fuse: Whether blocks run fused around the operators, where they can: on CUDA, for inference. Faster; see
            docs/limitations.md for what has run on a GPU.
    """
    for module in model.modules():
        if hasattr(module, "use_operator"):
            setattr(module, "use_operator", use)  # noqa: B010 (nn.Module types attributes as tensors)
        if isinstance(module, Block):
            module.fuse = fuse


@torch.no_grad()
def randomise(model: Restorer, seed: int) -> None:
    """Draws weights so that every parameter moves the output, whatever its initial value for training is.

    Linear and convolution weights keep the variance of their input (halved in residual branches by LayerNorm gains
    around 1); BatchNorm scales and statistics, biases and position-bias tables are far from their neutral values; the
    last convolution is small, so that pictures stay near the middle of 0..1. A family may have gains of its own.

    Args:
        model: Any network of this package; changed in place.
        seed: Seed of the generator, >= 0.
    """
    model.origin = None
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, deviation: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation + mean)

    last = _last_convolution(model)
    gains = FAMILIES[model.spec.family].random_gains
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs = module.weight[0].numel()
            usual = 0.3 if module is last else 0.8
            gain = next((gain for suffix, gain in gains.items() if name.endswith(suffix)), usual)
            normal(module.weight, 0.0, gain * inputs**-0.5)
            if module.bias is not None:
                normal(module.bias, 0.0, 0.02 if module is last else 0.1)
        elif isinstance(module, nn.LayerNorm):
            normal(module.weight, 1.0, 0.2)
            normal(module.bias, 0.0, 0.1)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
            normal(module.bias, 0.0, 0.1)
            assert module.running_mean is not None and module.running_var is not None
            normal(module.running_mean, 0.0, 0.1)
            variance = torch.rand(module.running_var.shape, generator=generator) + 0.5
            module.running_var.copy_(variance)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            normal(parameter, 0.0, 1.0)


def _last_convolution(model: nn.Module) -> nn.Module:
    """The convolution that makes the picture."""
    last = getattr(model, "conv_last", None)
    if last is None:
        upsample = model.upsample
        assert isinstance(upsample, nn.Sequential)
        last = upsample[0]
    assert isinstance(last, nn.Module)
    return last
