"""Grouped horizontal bars as an SVG, written by hand so that no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["bar_chart"]

COLOURS = ("#4c566a", "#81a1c1", "#bf616a", "#d08770", "#a3be8c", "#b48ead")
BAR, GAP, LEFT, WIDTH = 14, 12, 210, 720


def bar_chart(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Draws bars with their values.

    Args:
        title: Text above the bars, unit included.
        groups: Name of a group to its bars, name to value, 0 or more; bars of one name share a
            colour.

    Returns:
        The SVG document; it has a white background and needs no style sheet.
    """
    largest = max((value for bars in groups.values() for value in bars.values()), default=1) or 1
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    shapes, y = [], 44
    for group, bars in groups.items():
        shapes.append(_text(10, y - 4, group, bold=True))
        y += 4
        for name, value in bars.items():
            length = max((WIDTH - LEFT - 70) * value / largest, 0.5)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            shapes.append(_text(LEFT - 6, y + BAR - 3, name, anchor="end"))
            size = f'width="{length:.1f}" height="{BAR - 2}"'
            shapes.append(f'<rect x="{LEFT}" y="{y}" {size} fill="{colour}"/>')
            shapes.append(_text(LEFT + length + 5, y + BAR - 3, f"{value:.1f}"))
            y += BAR
        y += GAP + 14
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" '
        f'viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="11">'
    )
    background = f'<rect width="{WIDTH}" height="{y}" fill="white"/>'
    return "\n".join((head, background, _text(10, 18, title, bold=True), *shapes, "</svg>\n"))


def _text(x: float, y: float, words: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
