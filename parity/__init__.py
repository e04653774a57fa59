"""Parity: metrics, the ladder, the report."""

from typing import TYPE_CHECKING

from ..export.floors import FLOORS
from ..json_form import json_number
from ..lazy import lazy_attributes
from .metrics import max_steps, nonfinite, psnr, psnr_y, ssim_y
from .report import Measure, ParityReport, Rung, TaskMeasure, TaskRung

if TYPE_CHECKING:
    from .images import ParityImage, load_images, verification_images
    from .ladder import verify
    from .truths import TruthPair, own_pairs

__all__ = [
    "FLOORS",
    "Measure",
    "ParityImage",
    "ParityReport",
    "Rung",
    "TaskMeasure",
    "TaskRung",
    "TruthPair",
    "json_number",
    "load_images",
    "max_steps",
    "nonfinite",
    "own_pairs",
    "psnr",
    "psnr_y",
    "ssim_y",
    "verification_images",
    "verify",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "verify": ".ladder",
        **dict.fromkeys(("ParityImage", "load_images", "verification_images"), ".images"),
        **dict.fromkeys(("TruthPair", "own_pairs"), ".truths"),
    },
)
