"""Calibration: INT8 files within a budget in dB."""

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .options import METHODS, CalibrationOptions

if TYPE_CHECKING:
    from .calibration import calibrate
    from .plot import loss_plot
    from .recipe import Recipe, read_recipe
    from .report import CalibrationReport

__all__ = [
    "METHODS",
    "CalibrationOptions",
    "CalibrationReport",
    "Recipe",
    "calibrate",
    "loss_plot",
    "read_recipe",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "CalibrationReport": ".report",
        "Recipe": ".recipe",
        "calibrate": ".calibration",
        "loss_plot": ".plot",
        "read_recipe": ".recipe",
    },
)
