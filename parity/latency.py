"""How long a file or an engine takes for a picture, on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..engines.openvino.turns import take_turns
from ..engines.runner import Runner
from ..json_form import JsonForm
from .images import ParityImage

__all__ = ["LATENCY_COLUMNS", "Latency", "latency"]

LATENCY_COLUMNS = ("target", "rows x columns", "least", "median", "runs")


@dataclass(frozen=True)
class Latency(JsonForm):
    """What one picture takes, from array to array: padding and copies to and from the device count.

    Attributes:
        target: What ran it.
        rows: Height of the picture, pixels.
        columns: Its width.
        runs: How often it ran, after once that does not count.
        least_seconds: The least time of all runs.
        median_seconds: Their median.
    """

    target: str
    rows: int
    columns: int
    runs: int
    least_seconds: float
    median_seconds: float

    def row(self) -> tuple[str, ...]:
        """A row of a table, of `LATENCY_COLUMNS`."""
        least, median = (f"{seconds * 1e3:.1f} ms" for seconds in (self.least_seconds, self.median_seconds))
        return self.target, f"{self.rows}x{self.columns}", least, median, str(self.runs)


def latency(runner: Runner, images: Sequence[ParityImage]) -> Latency | None:
    """Times a runner on the largest of some pictures; None where it emulates half precision, of which no time tells.

    Args:
        runner: The runner.
        images: The pictures.
    """
    described = runner.describe()
    if described.get("half_precision") == "emulated":
        return None
    largest = max(images, key=lambda image: image.pixels.size)
    ((times,), _) = take_turns([runner], largest.pixels[None])
    rows, columns = largest.pixels.shape[1:]
    return Latency(str(described["target"]), rows, columns, len(times), min(times), statistics.median(times))
