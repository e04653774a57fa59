"""How exact a network is in float32 by itself: some amplify rounding, and no file can agree with them better."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from ..engines.runner import Images
from ..export.floors import FLOORS
from ..models import Restorer
from .metrics import psnr

__all__ = ["conditioned_floor", "own_rounding"]

ROUNDINGS = 6.0
"""dB that two roundings of one network may lie further apart than either from the exact result: twice the error."""


def conditioned_floor(own: float) -> float:
    """The floor in dB of a float32 file of a network whose own float32 is that far from float64.

    It is never below that of float16: two runs of a network that is less exact than that have little in common.

    Args:
        own: The dB of `own_rounding`.
    """
    return min(FLOORS["float32"], max(FLOORS["float16"], round(own - ROUNDINGS, 1)))


def own_rounding(model: Restorer, pictures: Sequence[Images], restored: Sequence[Images]) -> float | None:
    """The dB between what a network makes of pictures in float32 and in float64, of the worst picture.

    Args:
        model: The network, in float32; not changed.
        pictures: ``[1, C, H, W]`` in 0..1.
        restored: What it makes of them in float32.

    Returns:
        The dB; None where the network cannot be run in float64.
    """
    exact = copy.deepcopy(model).double()
    try:
        with torch.no_grad():
            made = [exact(torch.from_numpy(picture).double()).float().numpy() for picture in pictures]
    except (RuntimeError, TypeError):  # constants of another type inside
        return None
    return min(psnr(one, other) for one, other in zip(restored, made, strict=True))
