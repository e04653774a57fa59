"""Pictures and plots for the page: PNG as data URL, difference maps, bar plots as SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np

from ..engines.runner import Images
from ..images.charts import Bar, bar_chart
from ..images.codecs import encode
from ..images.picture import Image
from .tables import decibels

__all__ = ["amplification", "bar_plot", "difference_map", "picture"]

NOT_FINITE = (1.0, 0.0, 1.0)
"""Magenta: the colour of values that are NaN or infinite."""


def picture(pixels: Images) -> str:
    """``[C, H, W]`` as the data URL of a PNG of 8 bits; what is not finite is magenta.

    Of more than three channels the first three are shown as red, green and blue, of two the first as grey.
    """
    rgb = np.broadcast_to(pixels[: 3 if len(pixels) >= 3 else 1], (3, *pixels.shape[1:]))
    bad = ~np.isfinite(rgb).all(0)
    shown = np.where(bad, np.array(NOT_FINITE, np.float32)[:, None, None], np.nan_to_num(rgb))
    data = encode(".png", Image(np.clip(shown, 0, 1).astype(np.float32)))
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _difference(truth: Images, found: Images) -> Images:
    with np.errstate(invalid="ignore"):  # inf - inf
        difference: Images = np.abs(truth - found)
    return difference


def amplification(truth: Images, found: Images) -> int:
    """The power of two that makes the greatest finite difference as bright as it can be without clipping; 0: none."""
    difference = _difference(truth, found)
    greatest = float(difference[np.isfinite(difference)].max(initial=0))
    return 2 ** max(0, math.floor(-math.log2(greatest))) if greatest > 0 else 0


def difference_map(truth: Images, found: Images, factor: int) -> Images:
    """Absolute difference times `factor`; NaN where it is not finite."""
    difference = _difference(truth, found)
    return np.where(np.isfinite(difference), difference * np.float32(factor), np.float32(np.nan))


def bar_plot(bars: Sequence[tuple[str, float]], floor: float) -> str:
    """Horizontal bars in dB with a line at the floor; identical pictures fill the width, broken ones are empty.

    Args:
        bars: Label and PSNR in dB, which may be infinite.
        floor: The floor in dB.
    """
    finite = [value for _, value in bars if math.isfinite(value)]
    top = 1.08 * max([floor, 1.0, *finite])
    drawn = [
        Bar(label, value / top, decibels(value), "var(--bar)" if value >= floor else "var(--broken)")
        for label, value in bars
    ]
    limit = f"floor {floor:g} dB"
    told = "; ".join([*(f"{bar.label}: {bar.figure}" for bar in drawn), limit])
    return bar_chart(told, {"": drawn}, mark=(floor / top, limit), embedded=True)
