"""A report as rows of a table."""

from __future__ import annotations

from .report import ParityReport, Rung

__all__ = ["COLUMNS", "report_rows"]

COLUMNS = ("rung", "floor", "worst", "images", "verdict")


def report_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """One row a rung: name, floor, worst figure, images, verdict."""
    return [_row(rung) for rung in report.rungs]


def _row(rung: Rung) -> tuple[str, ...]:
    verdict = "pass" if rung.passed else "MISSED"
    if rung.broken_block:
        verdict += f" from {rung.broken_block}"
    if rung.note:
        verdict += f" ({rung.note})"
    if rung.task:
        images = ", ".join(f"{m.image} {m.candidate:.2f} (input {m.baseline:.2f})" for m in rung.task)
        return rung.name, f"loss <= {rung.floor:g} dB", f"{rung.worst:+.4f} dB", images, verdict
    worst = f"{rung.worst:.1f} dB"
    if rung.agreement is not None:
        worst += f", keys {rung.agreement:.4%}"
    steps = max(measure.max_steps for measure in rung.measures)
    images = ", ".join(f"{m.height}x{m.width} {m.psnr:.1f}" for m in rung.measures)
    return rung.name, f">= {rung.floor:g} dB", f"{worst} ({steps:.3f} steps)", images, verdict
