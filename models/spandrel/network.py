"""A network of spandrel's as a `Restorer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from ..base import Restorer
from ..spec import ModelSpec

__all__ = ["SpandrelRestorer"]


class SpandrelRestorer(Restorer):
    """A network of spandrel's, called as spandrel calls it, but not clamped.

    Args:
        spec: What other rooms need to know of it.
        net: The network, in evaluation mode.
        call: From the network and pictures ``[B, C, H, W]`` in 0..1 to restored pictures ``[B, C, s*H, s*W]``.
        square: Whether pictures must be square.

    Attributes:
        swapped: How many attentions run as an operator of this package.
        marked: Paths of its blocks.
    """

    def __init__(self, spec: ModelSpec, net: nn.Module, call: Callable[[Any, Tensor], Tensor], square: bool) -> None:
        super().__init__(spec)
        self.net, self.call, self.square = net, call, square
        self.swapped = 0
        self.marked: tuple[str, ...] = ()

    def network(self, images: Tensor) -> Tensor:
        """See `Restorer.network`. The pictures are copied: some networks change theirs in place."""
        height, width = images.shape[-2:]
        inner = images.clone() if self.spec.img_range == 1.0 else images * self.spec.img_range
        if self.square and height != width:
            side = max(height, width)
            inner = pad(inner, (0, side - width, 0, side - height), mode="replicate")
        restored = self.call(self.net, inner)
        if self.square and height != width:
            restored = restored[..., : height * self.spec.scale, : width * self.spec.scale]
        return restored if self.spec.img_range == 1.0 else restored / self.spec.img_range

    def blocks(self) -> tuple[str, ...]:
        """See `Restorer.blocks`."""
        return self.marked
