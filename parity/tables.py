"""A report as rows of a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .report import ParityReport, Rung, TaskRung

if TYPE_CHECKING:
    from .quality import QualityReport

__all__ = ["COLUMNS", "QUALITY_COLUMNS", "decibels", "describe_miss", "quality_rows", "report_rows"]

COLUMNS = ("rung", "floor", "worst", "images", "verdict")
QUALITY_COLUMNS = ("block", "k", "range used", "overflows", "underflows", "alone", "so far")


def decibels(value: float) -> str:
    """A PSNR for people; infinite ones in words."""
    if math.isfinite(value):
        return f"{value:.1f} dB"
    return "identical" if value > 0 else "not finite"


def report_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """One row a rung: name, floor, worst figure, images, verdict."""
    return [_row(rung) for rung in report.rungs]


def _row(rung: Rung | TaskRung) -> tuple[str, ...]:
    verdict = "pass" if rung.passed else "MISSED"
    if isinstance(rung, TaskRung):
        images = ", ".join(f"{m.image} {m.candidate:.2f} (input {m.baseline:.2f})" for m in rung.measures)
        lost = round(rung.loss, 4) + 0.0  # no negative zero
        return rung.name, f"loss <= {rung.greatest_loss:g} dB", f"{lost:.4f} dB lost", images, verdict
    if rung.broken_block:
        verdict += f" from {rung.broken_block}"
    if rung.note:
        verdict += f" ({rung.note})"
    worst = decibels(rung.worst)
    if rung.agreement is not None:
        worst += f", keys {rung.agreement:.4%}"
    steps = max(measure.max_steps for measure in rung.measures)
    images = ", ".join(f"{m.image} {m.height}x{m.width} {m.psnr:.1f}" for m in rung.measures)
    return rung.name, f">= {rung.floor:g} dB", f"{worst} ({steps:.3f} steps)", images, verdict


def describe_miss(rung: Rung | TaskRung) -> str:
    """Why a rung was missed, with the figures, as the end of a sentence."""
    if isinstance(rung, TaskRung):
        return f"{rung.loss:.3f} dB are lost against ground truth, {rung.greatest_loss:g} dB are allowed"
    reasons = []
    if broken := sum(measure.nonfinite for measure in rung.measures):
        reasons.append(f"{broken} output values are NaN or infinite")
    elif not rung.worst >= rung.floor:
        reasons.append(f"{rung.worst:.2f} dB on the worst image, the floor is {rung.floor:g} dB")
    if rung.agreement_floor is not None and (rung.agreement or 0.0) < rung.agreement_floor:
        reasons.append(f"{rung.agreement or 0:.3%} of the keys agree, {rung.agreement_floor:.1%} are needed")
    if rung.broken_block:
        reasons.append(f"the first block that differs: {rung.broken_block}")
    return "; ".join(reasons)


def quality_rows(report: QualityReport) -> list[tuple[str, ...]]:
    """One row a block: name, exponent, range, values lost, dB by itself and with all blocks before."""
    rows: list[tuple[str, ...]] = []
    for entry in report.blocks:
        found = entry.rounding
        used = f"{found.amax:.4g} ({entry.share:.1%})"
        underflows = f"{found.underflows / found.values:.2%}" if found.values else "-"
        figures = (str(entry.k or "-"), used, str(found.overflows), underflows)
        rows.append((entry.block, *figures, decibels(entry.own_psnr), decibels(entry.psnr)))
    return rows
