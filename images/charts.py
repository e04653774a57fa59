"""Charts of horizontal bars as SVG, drawn by hand: no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "bar_chart"]

LINE = 22
"""Height of a bar with the space around it, in the units of the picture, as every length here."""
FIGURES, LEGEND = 190, 190
"""Widths of the column of figures and of an entry of the legend."""
STYLE = "font: 12px system-ui, sans-serif; background: #fff; color: #222"
"""Of a chart that is a file of its own; an embedded one is styled by its page."""


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: Text before it.
        share: Its length as a share of the greatest length, cut to 0..1.
        figure: Text after it, unit included.
        colour: As CSS writes it.
    """

    label: str
    share: float
    figure: str
    colour: str

    @property
    def length(self) -> float:
        """The share, within its limits."""
        return min(max(self.share, 0.0), 1.0)


def bar_chart(
    title: str,
    groups: Mapping[str, Sequence[Bar]],
    *,
    legend: Sequence[tuple[str, str]] = (),
    mark: tuple[float, str] | None = None,
    labels: int = 190,
    bars: int = 460,
    embedded: bool = False,
) -> str:
    """Draws groups of bars below each other.

    Args:
        title: What the chart says; drawn above the bars, but of an embedded chart only read out.
        groups: Heading of a group to its bars; without text, no heading is drawn.
        legend: Colours with their meaning.
        mark: A share with its text: a dashed line across all bars.
        labels: Width of the column of labels.
        bars: The greatest length of a bar.
        embedded: It stands in a page, which says its font and colours; else it is a document of its own.
    """
    drawn: list[str] = []
    top = 0
    if not embedded:
        drawn.append(_text(8, 16, title, bold=True))
        top += LINE
    for index, (colour, meaning) in enumerate(legend):
        across = labels + LEGEND * index
        drawn += [_rect(across, top + 5, 11, 11, colour), _text(across + 16, top + 15, meaning)]
    top += LINE if legend else 0
    first = top
    for heading, members in groups.items():
        if heading:
            drawn.append(_text(8, top + 20, heading, bold=True))
            top += LINE + 4
        for bar in members:
            length = bars * bar.length
            drawn += [
                _text(labels - 8, top + 15, bar.label, anchor="end"),
                _rect(labels, top + 3, length, LINE - 6, bar.colour),
                _text(labels + (length if mark is None else bars) + 8, top + 15, bar.figure),
            ]
            top += LINE
    if mark is not None:
        share, meaning = mark
        x = f"{labels + bars * min(max(share, 0.0), 1.0):.1f}"
        dashed = 'stroke="currentColor" stroke-dasharray="4 3"'
        drawn.append(f'<line x1="{x}" x2="{x}" y1="{first}" y2="{top + 4}" {dashed}></line>')
        drawn.append(_text(float(x), top + 18, meaning, anchor="middle"))
        top += LINE
    size = f"0 0 {labels + bars + FIGURES} {top + 4}"
    alone = "" if embedded else f' xmlns="http://www.w3.org/2000/svg" style="{STYLE}"'
    lines = "\n".join(drawn)
    return f'<svg{alone} viewBox="{size}" role="img" aria-label="{escape(title)}">\n{lines}\n</svg>\n'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}"></rect>'


def _text(x: float, y: float, words: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
