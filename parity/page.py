"""A report as one HTML page: verdict, rungs, pictures with their differences, plots; nothing is loaded from outside."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import OnnxRuntimeRunner
from ..engines.runner import Images
from ..engines.torch_runner import TorchRunner
from ..export.artifact import OnnxArtifact
from .drawings import amplification, bar_plot, difference_map, picture
from .images import ParityImage, verification_images
from .metrics import psnr
from .report import ParityReport, Rung
from .tables import COLUMNS, QUALITY_COLUMNS, decibels, describe_miss, quality_rows, report_rows

if TYPE_CHECKING:
    from ..models import Restorer
    from .quality import QualityReport

__all__ = ["block_section", "report_page"]

STYLE = """
:root { color-scheme: light dark; --pass: #1a7f37; --miss: #c62828; --line: #8888; --bar: #4477aa; --broken: #cc3311 }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.2rem; margin-top: 2.2rem } h3 { font-size: 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line) }
td { overflow-wrap: anywhere }
.pass { color: var(--pass); font-weight: 600 } .miss { color: var(--miss); font-weight: 600 }
.row { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; width: 17rem; max-width: 100% } figcaption { font-size: .85rem }
figure img { display: block; width: 100%; image-rendering: pixelated; outline: 1px solid var(--line) }
.compare { width: 34rem; --at: 50% } .compare div { position: relative }
.compare img + img { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--at)) }
.compare input { width: 100%; margin: .4rem 0 } .wide { overflow-x: auto } .wide td { min-width: 6rem }
svg { width: 100%; max-width: 48rem; font: 13px system-ui, sans-serif } svg text { fill: currentColor }
"""

SCRIPT = """
for (const slider of document.querySelectorAll(".compare input"))
  slider.addEventListener("input", () => slider.closest(".compare").style.setProperty("--at", slider.value + "%"));
"""
"""Moves the border between the two pictures of a comparison; without it, each shows one half."""


def report_page(
    report: ParityReport,
    model: Restorer,
    artifact: OnnxArtifact,
    images: Sequence[ParityImage] | None,
    section: str = "",
    command: str = "",
) -> str:
    """A report as an HTML page that needs nothing but itself.

    The pictures are computed again, for a report holds figures only.

    Args:
        report: What `verify` found.
        model: The reference.
        artifact: The exported file.
        images: The pictures given to `verify`; the ones it takes by itself where None.
        section: HTML of what else was looked at.
        command: The command line that made the page; empty for none.
    """
    if images is None:
        images = verification_images(artifact)
    reference, candidate = TorchRunner(model), OnnxRuntimeRunner(artifact)
    rungs = [rung for rung in report.rungs if isinstance(rung, Rung)]
    shown = []
    for image in images:
        outputs = [runner.run(image.pixels[None])[0] for runner in (reference, candidate)]
        shown.append(_image(image, outputs, rungs))
    verdict = '<span class="pass">passed</span>' if report.passed else '<span class="miss">MISSED</span>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parity of {escape(report.subject)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Parity of {escape(report.subject)}: {verdict}</h1>
{_misses(report)}
<h2>Rungs</h2>
{_rungs(report)}
{"".join(f"<p>{escape(note)}</p>" for note in report.notes)}
<h2>PSNR of each picture</h2>
{"".join(_plot(rung) for rung in rungs)}
<h2>Pictures</h2>
{"".join(shown)}
{section}
<h2>Where it comes from</h2>
{_facts(_made(command) | _provenance(report, artifact))}
<script>{SCRIPT}</script>
</body>
</html>
"""


def _misses(report: ParityReport) -> str:
    missed = [rung for rung in report.rungs if not rung.passed]
    return "".join(f"<p><strong>{escape(r.name)}</strong>: {escape(describe_miss(r))}.</p>" for r in missed)


def _rungs(report: ParityReport) -> str:
    return _table(COLUMNS, report_rows(report), ["pass" if rung.passed else "miss" for rung in report.rungs])


def block_section(report: QualityReport) -> str:
    """What half precision costs every block, as a part of the page."""
    rows = quality_rows(report)
    return f"<h2>{escape(report.precision)} in the blocks</h2>{_table(QUALITY_COLUMNS, rows, [''] * len(rows))}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> str:
    """A table whose last cells have classes."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for (*cells, last), kind in zip(rows, kinds, strict=True):
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr>{row}<td class="{kind}">{escape(last)}</td></tr>')
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _plot(rung: Rung) -> str:
    bars = [(f"{m.image} {m.height}x{m.width}", m.psnr) for m in rung.measures]
    return f"<h3>{escape(rung.name)}</h3>{bar_plot(bars, rung.floor)}"


def _image(image: ParityImage, outputs: Sequence[Any], rungs: Sequence[Rung]) -> str:
    """Input, both outputs and their difference side by side."""
    truth, found = outputs
    factor = amplification(truth, found)
    _, height, width = image.pixels.shape
    identity = (image.name, height, width)
    measured = [(r.name, m.psnr) for r in rungs for m in r.measures if (m.image, m.height, m.width) == identity]
    figures = " · ".join(f"{rung}: {decibels(value)}" for rung, value in measured)
    difference = f"difference, amplified {factor:,} times" if factor else "difference: none"
    bad = int(np.size(found) - np.count_nonzero(np.isfinite(found)))
    if bad:
        difference = f"difference, {bad} values not finite (magenta)" + (f", amplified {factor:,} times" * bool(factor))
    name, candidate = escape(image.name), f"candidate (ONNX), {decibels(psnr(truth, found))}"
    compared = (
        f'<figure class="compare"><div>{_drawn("input", image.pixels, name)}{_drawn(candidate, found, name)}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="Border between input and candidate of {name}">'
        f"<figcaption>left: input; right: {escape(candidate)}</figcaption></figure>"
    )
    sides = [("reference (PyTorch)", truth), (difference, difference_map(truth, found, factor))]
    drawn = "".join(
        f"<figure>{_drawn(text, pixels, name)}<figcaption>{escape(text)}</figcaption></figure>"
        for text, pixels in sides
    )
    title = f"{image.name}, {height}x{width}"
    return f'<h3>{escape(title)}</h3><p>{escape(figures)}</p><div class="row">{compared}{drawn}</div>'


def _drawn(text: str, pixels: Images, name: str) -> str:
    return f'<img src="{picture(pixels)}" alt="{escape(text)} of {name}">'


def _made(command: str) -> dict[str, Any]:
    made = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"made": made, **({"command": command} if command else {})}


def _provenance(report: ParityReport, artifact: OnnxArtifact) -> dict[str, Any]:
    facts: dict[str, Any] = {"file": artifact.file_name, "sha256": artifact.sha256, "precision": artifact.precision}
    facts |= {f"fixed {name}": size for name, size in artifact.fixed_sizes.items()}
    facts |= {f"model: {name}": value for name, value in report.spec.to_json().items() if value is not None}
    facts |= {f"export: {name}": value for name, value in artifact.provenance.items()}
    for role, described in report.runners.items():
        facts |= {f"{role}: {name}": value for name, value in described.items()}
    return facts


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f"<table><tbody>{rows}</tbody></table>"
