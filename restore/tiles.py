"""Where a picture is cut into tiles, and with which weights the restored tiles are put together again.

A tile begins on a multiple of what the model needs (`ModelSpec.pad_multiple`): so its attention windows, shifted ones
too, hold the same pixels as in the whole picture, and only near its edges does it know less than the whole. Nothing is
invented there: a tile ends inside the picture, or where the picture does. Neighbours share an overlap. Of it each gives
the half that is farther from its own edge, with a short ramp in the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cuts", "TilePlan", "cut", "plan_tiles"]

RAMP_SHARE = 4
"""The ramp takes at most this part of the overlap: what is nearer to a tile's edge is not used."""


@dataclass(frozen=True)
class Cuts:
    """Tiles along one side of a picture, all of one size.

    Attributes:
        length: Pixels of the picture.
        tile: Pixels of a tile. The last one may reach over the end, as the padded whole picture does.
        origins: First pixel of every tile, ascending.
    """

    length: int
    tile: int
    origins: tuple[int, ...]

    def span(self, index: int) -> tuple[int, int]:
        """First pixel of a tile, and the one after its last that lies in the picture."""
        return self.origins[index], min(self.origins[index] + self.tile, self.length)

    @property
    def overlap(self) -> int:
        """Pixels that neighbours share at least; 0 for a single tile."""
        return min((first + self.tile - second for first, second in pairwise(self.origins)), default=0)

    @property
    def seams(self) -> tuple[float, ...]:
        """Where one tile hands over to the next: the middles of the overlaps, in pixels from the picture's edge."""
        return tuple((first + self.tile + second) / 2 for first, second in pairwise(self.origins))

    def weights(self, index: int, scale: int = 1) -> NDArray[np.float32]:
        """Weights of a tile's pixels: 1 inside, 0 near the edges within the picture, a linear ramp between.

        Those of all tiles sum to one at every pixel, exactly: ramps have a power of two of steps, whose values and
        sums float32 holds.

        Args:
            index: Which tile.
            scale: Output pixels per input pixel.

        Returns:
            float32, one a pixel of the restored `span`.
        """
        start, stop = self.span(index)
        pixels = np.arange(start * scale, stop * scale)
        return self._risen(pixels, index - 1, scale) - self._risen(pixels, index, scale)

    def ramp(self, seam: int, scale: int = 1) -> tuple[int, int]:
        """Where one tile hands over to the next: the pixel from which on both count, and the first of the next alone.

        Ramps do not overlap, however close tiles begin: at most two tiles count at a pixel.

        Args:
            seam: Number of the tile before the seam; -1, and the last tile, stand for the picture's own ends.
            scale: Output pixels per input pixel, in which the answer counts.
        """
        if not 0 <= seam < len(self.origins) - 1:
            end = 0 if seam < 0 else self.length * scale
            return end, end
        seams = self.seams
        apart = min((after - before for before, after in pairwise(seams)), default=math.inf)
        share = int(min(self.overlap * scale // RAMP_SHARE, apart * scale))
        width = 1 << (share.bit_length() - 1) if share else 0
        first = (round(2 * seams[seam]) * scale - width) // 2
        return first, first + width

    def _risen(self, pixels: NDArray[np.intp], seam: int, scale: int) -> NDArray[np.float32]:
        """Share of all that stands after a seam."""
        first, alone = self.ramp(seam, scale)
        if first == alone:
            return (pixels >= first).astype(np.float32)
        risen: NDArray[np.float32] = np.clip((pixels - first + 0.5) / (alone - first), 0, 1).astype(np.float32)
        return risen


def cut(length: int, tile: int, overlap: int, multiple: int, least: int = 1) -> Cuts:
    """Cuts a side of a picture: as few tiles as do, of equal size, none larger than it must be, evenly spread.

    Args:
        length: Pixels of the picture, at least 1.
        tile: Greatest size of a tile, a multiple of `multiple`.
        overlap: Pixels that neighbours share at least, a multiple of `multiple` below `tile`; of no account where one
            tile does.
        multiple: Tiles begin and end on multiples of this.
        least: Smallest size of a tile that the runner takes, at most `tile`; one of a smaller picture reaches over it.

    Raises:
        ValueError: Sizes that are not so.
    """
    padded = length + -length % multiple
    one = 0 < padded <= tile
    if length < 1 or tile % multiple or overlap % multiple or least > tile or not (one or 0 <= overlap < tile):
        raise ValueError(f"cannot cut {length} into tiles of {least} to {tile} on multiples of {multiple}, {overlap=}")
    if one:
        return Cuts(length, max(padded, least), (0,))
    count = -((overlap - padded) // (tile - overlap))
    even = -((overlap - padded) // count)
    size = max(even + -even % multiple + overlap, least)
    origins = (number * (padded - size) // (count - 1) // multiple * multiple for number in range(count))
    return Cuts(length, size, tuple(origins))


@dataclass(frozen=True)
class TilePlan:
    """How a picture is cut.

    Attributes:
        rows: Along its height.
        columns: Along its width.
    """

    rows: Cuts
    columns: Cuts

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.rows.origins) * len(self.columns.origins)

    @property
    def pixels(self) -> int:
        """Input pixels that are computed, overlaps as often as they are."""
        return self.count * self.rows.tile * self.columns.tile

    @property
    def overlap(self) -> int:
        """Pixels that neighbours share at least; 0 for a single tile."""
        return min((side.overlap for side in (self.rows, self.columns) if len(side.origins) > 1), default=0)

    def __str__(self) -> str:
        return f"{self.count} tiles of {self.rows.tile}x{self.columns.tile}, overlap {self.overlap}"


def plan_tiles(
    size: tuple[int, int], tile: tuple[int, int], overlap: int, multiple: int, least: tuple[int, int] = (1, 1)
) -> TilePlan:
    """Cuts a picture; see `cut`.

    Args:
        size: (rows, columns) of the picture.
        tile: Greatest (rows, columns) of a tile, multiples of `multiple`.
        overlap: Pixels that neighbours share at least, a multiple of `multiple`.
        multiple: Tiles begin and end on multiples of this.
        least: Smallest (rows, columns) of a tile.

    Raises:
        ValueError: Sizes that do not go together.
    """
    sides = zip(size, tile, least, strict=True)
    return TilePlan(*(cut(length, greatest, overlap, multiple, smallest) for length, greatest, smallest in sides))
