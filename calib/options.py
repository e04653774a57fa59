"""How to calibrate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError

__all__ = ["METHODS", "RESTS", "CalibrationOptions"]

METHODS = ("mse", "minmax", "entropy", "percentile")
"""Ways to find an activation's range, see `histogram.threshold`."""

RESTS = ("float32", "float16")
"""Types of what is not INT8."""


@dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    Attributes:
        method: How an activation's range is found, see `histogram.threshold`.
        percentile: For the method ``"percentile"``, in percent.
        psnr_budget: Greatest loss in dB of any judged picture against ground truth.
        min_parity: Least PSNR in dB of any judged picture against the float file.
        min_agreement: Least share of a key-semantic model's keys that stay the same, in any judged picture.
        crops: Number of calibration crops.
        held_out: Number of given files that are judged on and not calibrated on.
        seed: Of the order of files.
        equalise: Move channel scales into weights: None where that lowers the loss, else always or never.
        ends: Quantise the first convolution and the reconstruction head as well, as far as the budget allows.
        every_layer: Measure the loss of every layer, also where the budget holds with all of them in INT8.
        rest: Type of everything else: ``"float32"`` or ``"float16"``; input and output stay float32.
    """

    method: str = "mse"
    percentile: float = 99.99
    psnr_budget: float = 0.1
    min_parity: float = 38.0
    min_agreement: float = 0.95
    crops: int = 64
    held_out: int = 8
    seed: int = 0
    equalise: bool | None = None
    ends: bool = False
    every_layer: bool = True
    rest: str = "float32"

    def check(self) -> None:
        """Refuses values out of range.

        Raises:
            InputError: One is.
        """
        if self.method not in METHODS:
            raise InputError(f"The method must be one of {', '.join(METHODS)}, got {self.method!r}.")
        if self.rest not in RESTS:
            raise InputError(f"The rest must be one of {', '.join(RESTS)}, got {self.rest!r}.")
        if not 0 < self.percentile <= 100:
            raise InputError(f"The percentile must be above 0 and at most 100, got {self.percentile}.")
        if not 0 <= self.psnr_budget < math.inf:
            raise InputError(f"The budget must be at least 0 dB and finite, got {self.psnr_budget} dB.")
        if not math.isfinite(self.min_parity):
            raise InputError(f"The least parity must be finite, got {self.min_parity} dB.")
        if not 0 <= self.min_agreement <= 1:
            raise InputError(f"The least agreement of keys must be in 0..1, got {self.min_agreement}.")
        if self.crops < 1 or self.held_out < 1:
            raise InputError(f"There must be at least 1 crop and 1 held-out file, got {self.crops}, {self.held_out}.")
