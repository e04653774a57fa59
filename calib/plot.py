"""The plot of a calibration: layer against dB, kept or promoted, as a picture of its own (SVG)."""

from __future__ import annotations

import math
from html import escape

from .report import INT8, CalibrationReport, LayerResult

__all__ = ["cost_plot"]

LABELS, BARS, FIGURES, LINE = 360, 400, 200, 20
COLOURS = {"int8": "#2a6fb0", "promoted": "#c8502d", "end": "#9a9a9a"}
WORDS = {"int8": "int8", "promoted": "promoted to float", "end": "float by default"}
STYLE = "font: 12px system-ui, sans-serif; background: #fff; color: #222"


def cost_plot(report: CalibrationReport) -> str:
    """Horizontal bars, one a layer: how many dB the picture that suffers most loses with this layer alone in INT8.

    Without ground truth the bars show the parity's distance below 100 dB, which orders the layers the same way.
    """
    measured = [layer for layer in report.layers if layer.quality is not None]
    lengths = {layer.name: _length(layer) for layer in measured}
    top = max([*lengths.values(), 1e-9])
    height = LINE * (len(measured) + 3)
    drawn = [_legend(report)]
    for index, layer in enumerate(measured):
        above = LINE * (index + 2)
        width = BARS * lengths[layer.name] / top
        drawn.append(
            f'<text x="{LABELS - 8}" y="{above + 14}" text-anchor="end">{escape(layer.name)}</text>'
            f'<rect x="{LABELS}" y="{above + 3}" width="{width:.1f}" height="{LINE - 6}" '
            f'fill="{COLOURS[layer.decision]}"></rect>'
            f'<text x="{LABELS + width + 6:.1f}" y="{above + 14}">{escape(_figure(layer))}</text>'
        )
    box = f"0 0 {LABELS + BARS + FIGURES} {height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" style="{STYLE}">'
        f"<title>{escape(report.recipe.model)}: cost of every layer in INT8</title>{''.join(drawn)}</svg>\n"
    )


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


def _legend(report: CalibrationReport) -> str:
    truth = any(known for _, known in report.pictures)
    asked = "dB lost against ground truth, worst picture" if truth else "dB from the float model, worst picture"
    title = f"{report.recipe.model}: one layer in INT8, {asked}; budget {report.recipe.psnr_budget:g} dB"
    parts = [f'<text x="8" y="15" font-weight="bold">{escape(title)}</text>']
    counts = {kind: sum(layer.decision == kind for layer in report.layers) for kind in COLOURS}
    across = LABELS
    for kind in (INT8, *(kind for kind in COLOURS if kind != INT8)):
        parts.append(
            f'<rect x="{across}" y="24" width="11" height="11" fill="{COLOURS[kind]}"></rect>'
            f'<text x="{across + 16}" y="34">{WORDS[kind]}: {counts[kind]}</text>'
        )
        across += 170
    return "".join(parts)
