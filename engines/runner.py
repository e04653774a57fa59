"""The protocol every target implements, and the checks all of them share."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..models.spec import ModelSpec

__all__ = ["Images", "Runner", "check_images"]

Images = NDArray[np.float32]


@runtime_checkable
class Runner(Protocol):
    """Something that restores images."""

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""

    def run(self, images: Images) -> Images:
        """Restores float32 images ``[B, C, H, W]`` in 0..1, any H, W >= 1, to ``[B, C, s*H, s*W]``, not clamped."""

    def describe(self) -> dict[str, Any]:
        """Target, versions and device, for reports."""


def check_images(images: Images, spec: ModelSpec) -> None:
    """Refuses what no runner of this model can take.

    Raises:
        InputError: Not float32 ``[B, C, H, W]`` with B, H, W >= 1 and the model's channels.
    """
    if images.ndim != 4 or images.dtype != np.float32 or 0 in images.shape:
        raise InputError(
            f"Images must be float32 [B, C, H, W] without empty dimensions, got {images.dtype} {list(images.shape)}."
        )
    if images.shape[1] != spec.channels:
        raise InputError(
            f"The model {spec.name} takes {spec.channels} channel(s), the images have {images.shape[1]}.",
            fix="Convert the images to grey or RGB.",
        )
