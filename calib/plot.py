"""The plot of a calibration: layer against dB, kept or promoted, as a picture of its own (SVG)."""

from __future__ import annotations

import math

from ..images.charts import Bar, bar_chart
from .report import CalibrationReport, LayerResult

__all__ = ["loss_plot"]

COLOURS = {"int8": "#2a6fb0", "promoted": "#c8502d", "end": "#9a9a9a"}
WORDS = {"int8": "int8", "promoted": "promoted to float", "end": "float by default"}


def loss_plot(report: CalibrationReport) -> str:
    """Horizontal bars, one a layer: how many dB the picture that suffers most loses with this layer alone in INT8.

    Without ground truth the bars show the parity's distance below 100 dB, which orders the layers the same way.
    """
    measured = [layer for layer in report.layers if layer.quality is not None]
    lengths = {layer.name: _length(layer) for layer in measured}
    top = max([*lengths.values(), 1e-9])
    bars = [Bar(x.name, lengths[x.name] / top, _figure(x), COLOURS[x.decision]) for x in measured]
    counts = {kind: sum(layer.decision == kind for layer in report.layers) for kind in COLOURS}
    legend = [(COLOURS[kind], f"{WORDS[kind]}: {counts[kind]}") for kind in COLOURS]
    return bar_chart(_title(report), {"": bars}, legend=legend, labels=360, bars=400)


def _length(layer: LayerResult) -> float:
    """What the bar shows: a loss in dB, not below zero."""
    quality = layer.quality
    if quality is None:
        return 0.0
    if quality.loss is None:
        return 100.0 - min(quality.parity, 100.0) if math.isfinite(quality.parity) else 0.0
    return max(quality.loss, 0.0) if math.isfinite(quality.loss) else 0.0


def _figure(layer: LayerResult) -> str:
    quality = layer.quality
    if quality is None:
        return ""
    if quality.loss is None:
        return f"{quality.parity:.1f} dB from float"
    return f"{quality.loss:.4f} dB"


def _title(report: CalibrationReport) -> str:
    truth = any(known for _, known in report.pictures)
    asked = "dB lost against ground truth, worst picture" if truth else "dB from the float model, worst picture"
    return f"{report.recipe.model}: one layer in INT8, {asked}; budget {report.recipe.psnr_budget:g} dB"
