"""The base of every model: images of any size in, restored images out; padding and cropping around the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .layers import Block, Stage
from .origin import Origin
from .spec import ModelSpec

__all__ = ["RGB_MEAN", "Restorer", "pad_images"]

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of DIV2K in RGB, subtracted before the first convolution (SwinIR, arXiv 2108.10257, released code)."""


def pad_images(images: Tensor, multiple: int) -> Tensor:
    """Pads ``[B, C, H, W]`` at the bottom and right to a multiple: reflected where that fits, else edge-replicated."""
    height, width = images.shape[-2:]
    below, beside = -height % multiple, -width % multiple
    if below:
        images = pad(images, (0, 0, 0, below), mode="reflect" if below < height else "replicate")
    if beside:
        images = pad(images, (0, beside, 0, 0), mode="reflect" if beside < width else "replicate")
    return images


class Restorer(nn.Module, ABC):
    """A restoration network with its `ModelSpec`.

    Calling it takes float images ``[B, C, H, W]`` in 0..1 of any H, W >= 1 and returns ``[B, C, s*H, s*W]``, not
    clamped. `network` is the part that is exported: it takes sizes that are multiples of ``spec.pad_multiple``.
    ``origin`` is what `load_model` remembers of its source, None for a network that was built; ``facts`` what a library
    that built it read off the weights.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.origin: Origin | None = None
        self.facts: Mapping[str, Any] = {}
        mean = RGB_MEAN if spec.channels == 3 else (0.0,) * spec.channels
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.mean: Tensor

    @abstractmethod
    def network(self, images: Tensor) -> Tensor:
        """Restores images whose sides are multiples of ``spec.pad_multiple``."""

    def forward(self, images: Tensor) -> Tensor:
        """Pads, restores and crops."""
        height, width = images.shape[-2:]
        output = self.network(pad_images(images, self.spec.pad_multiple))
        return output[..., : height * self.spec.scale, : width * self.spec.scale]

    def blocks(self) -> tuple[str, ...]:
        """Paths of the modules whose outputs an exported file names: the network's blocks and stages."""
        return tuple(name for name, module in self.named_modules() if isinstance(module, Block | Stage))

    def normalise(self, images: Tensor) -> Tensor:
        """From 0..1 to the network's range."""
        centred = images - self.mean
        return centred if self.spec.img_range == 1.0 else centred * self.spec.img_range

    def denormalise(self, features: Tensor) -> Tensor:
        """From the network's range to 0..1."""
        if self.spec.img_range != 1.0:
            features = features / self.spec.img_range
        return features + self.mean
