"""Parity: metrics, the ladder, the report."""

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .metrics import json_number, max_steps, nonfinite, psnr, psnr_y, ssim_y
from .report import Measure, ParityReport, Rung, TaskMeasure

if TYPE_CHECKING:
    from .images import TestImage, load_images
    from .ladder import FLOORS, verify

__all__ = [
    "FLOORS",
    "Measure",
    "ParityReport",
    "Rung",
    "TaskMeasure",
    "TestImage",
    "json_number",
    "load_images",
    "max_steps",
    "nonfinite",
    "psnr",
    "psnr_y",
    "ssim_y",
    "verify",
]

__getattr__ = lazy_attributes(
    __name__,
    {"FLOORS": ".ladder", "TestImage": ".images", "load_images": ".images", "verify": ".ladder"},
)
