"""Which optimisation profile takes a stack of images, and how much they must be padded for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..profiles import Profile

__all__ = ["Fit", "fit_profile"]


@dataclass(frozen=True)
class Fit:
    """How images go through an engine.

    Attributes:
        profile: Index of the optimisation profile.
        step: Images at a time.
        minimum: Fewest images at a time; what remains at the end is filled up to it.
        rows: Rows (pixels) the images are padded to.
        columns: Columns (pixels) the images are padded to.
    """

    profile: int
    step: int
    minimum: int
    rows: int
    columns: int

    def chunks(self, batch: int) -> list[int]:
        """Numbers of images executed together, filled up: ``[4, 4, 2]`` for ten images in steps of four."""
        return [max(min(self.step, batch - start), self.minimum) for start in range(0, batch, self.step)]


def fit_profile(profiles: Sequence[Profile], batch: int, rows: int, columns: int) -> Fit | None:
    """The profile that computes the fewest pixels for images of a size.

    Smaller images are padded up to a profile's minimum, more images than its maximum go through in several steps;
    larger images do not fit. Among profiles of equal cost the one with fewer steps wins, then the one whose optimum is
    nearest.

    Args:
        profiles: In the engine's order.
        batch: Number of images.
        rows: Height of the images, a multiple of what the model needs.
        columns: Width, likewise.

    Returns:
        None where the images are larger than every profile.
    """
    best: tuple[tuple[int, int, float], Fit] | None = None
    for index, profile in enumerate(profiles):
        minimum, optimum, maximum = profile.minimum, profile.optimum, profile.maximum
        if rows > maximum[1] or columns > maximum[2]:
            continue
        fit = Fit(
            index, min(max(batch, minimum[0]), maximum[0]), minimum[0], max(rows, minimum[1]), max(columns, minimum[2])
        )
        area = fit.rows * fit.columns
        steps = fit.chunks(batch)
        distance = abs(steps[0] * area / (optimum[0] * optimum[1] * optimum[2]) - 1)
        cost = (sum(steps) * area, len(steps), distance)
        if best is None or cost < best[0]:
            best = cost, fit
    return best[1] if best else None
