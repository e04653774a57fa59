"""Calls of networks that spandrel makes in a way the torch exporter cannot follow, made in another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CALLS"]

NOISE_LEVEL = 15 / 255
"""Standard deviation of the noise that spandrel tells DRUNet of."""


def _with_noise_level(network: Any, images: Tensor) -> Tensor:
    """DRUNet: a plane of the noise level beside every picture, where spandrel has one for the first alone."""
    plane = torch.full_like(images[:, :1], NOISE_LEVEL)
    restored: Tensor = network(torch.cat([images, plane], dim=1))
    return restored


def _around_zero(network: Any, images: Tensor) -> Tensor:
    """RestoreFormer: in -1..1 and back, without the checks of torchvision's `normalize` on values."""
    restored: Tensor = network(images * 2 - 1)[0]
    return (restored + 1) / 2


CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {"DRUNet": _with_noise_level, "RestoreFormer": _around_zero}
"""By architecture; each is taken only where it returns what spandrel's own returns."""
