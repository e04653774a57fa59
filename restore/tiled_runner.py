"""A runner for pictures of any size around one that takes, or has memory for, only so much."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from ..cache import Cache
from ..engines.profiles import Profile
from ..engines.runner import Images, Runner, check_images
from ..errors import EnvironmentProblem, InputError
from ..models.spec import ModelSpec
from ..progress import Progress, silent
from .memory import MemoryPlan, memory_plan, on_gpu, room_bytes
from .out_of_memory import is_out_of_memory
from .seams import SEAM_PSNR, SeamTable, SeamWarning, seam_table
from .tiles import TilePlan, plan_tiles
from .tiling import Part, assembled, restored_parts, restored_shape, taken_sizes

__all__ = ["PlannedRoom", "Room", "Tile", "TiledRunner"]

LOG = logging.getLogger(__name__)

Tile = Literal["auto", "off"] | int | tuple[int, int]
"""Whole where it fits, else the largest tile that does; never; or the greatest side, or (rows, columns)."""

MARGIN = 6.0
"""dB by which the measured seams of a chosen overlap must be better than asked for: other pictures are not those that
were measured. Half the error."""


SMALL, TILE = 512, 256
"""Sides (pixels) of pictures that go whole without a look at the memory, and of tiles where it cannot be looked at."""

SMALLEST = 4
"""Side of the smallest tile that is tried when memory runs out, in multiples of the model's."""


class Room(Protocol):
    """What the memory holds."""

    def fits(self, rows: int, columns: int, batch: int = 1, beside: int = 0) -> bool:
        """Whether images of a size, in input pixels, can be run at once, with so many bytes taken beside them."""

    def largest_tile(self, multiple: int, beside: int = 0) -> int:
        """The greatest side of a square tile that fits, a multiple of a number; input pixels."""


class PlannedRoom:
    """What `memory_plan` says, once a picture is large enough to be worth measuring.

    Args:
        runner: What will run.
        budget: Most bytes that this process may hold; None for all that is free.
        progress: Told when something is measured.
    """

    def __init__(self, runner: Runner, budget: int | None = None, progress: Progress = silent) -> None:
        self._runner, self._budget, self._progress = runner, budget, progress
        self._room: int | EnvironmentProblem
        try:
            self._room = room_bytes(runner, budget)  # now, before pictures are read
        except EnvironmentProblem as problem:
            self._room = problem

    @cached_property
    def _plan(self) -> MemoryPlan | None:
        """None where the system does not tell what is free, or what a process holds."""
        try:
            if isinstance(self._room, EnvironmentProblem):
                raise self._room
            return memory_plan(self._runner, self._budget, room=self._room, progress=self._progress)
        except EnvironmentProblem as problem:
            LOG.warning("Memory is not planned: %s Pictures are restored in tiles of %d pixels.", problem.what, TILE)
            return None

    def fits(self, rows: int, columns: int, batch: int = 1, beside: int = 0) -> bool:
        """See `Room.fits`. What pictures take beside is not the GPU's, where one runs."""
        if self._budget is None and batch * rows * columns <= SMALL * SMALL:
            return True
        return self._plan is not None and self._plan.fits(rows, columns, batch, self._held(beside))

    def largest_tile(self, multiple: int, beside: int = 0) -> int:
        """See `Room.largest_tile`.

        Raises:
            EnvironmentProblem: Not even the smallest tile fits.
        """
        if self._plan is None:
            return max(TILE // multiple, 4) * multiple
        return self._plan.largest_tile(multiple, self._held(beside))

    def _held(self, beside: int) -> int:
        return 0 if on_gpu(self._runner) else beside


@dataclass(frozen=True)
class _Choice:
    """Tiles that a runner takes: smallest and greatest (rows, columns), and how many at once."""

    least: tuple[int, int]
    greatest: tuple[int, int]
    batch: int

    def holds(self, padded: tuple[int, int]) -> bool:
        """Whether a whole picture is no more than one tile."""
        return padded[0] <= self.greatest[0] and padded[1] <= self.greatest[1]


class TiledRunner:
    """Runs pictures whole where the runner takes them and the memory holds them, else in tiles.

    Args:
        runner: What restores a tile, or a whole picture.
        tile: The choice of the tile.
        overlap: Input pixels that neighbours share at least, rounded up to the model's multiple; None for the smallest
            that reaches `seam_psnr`.
        seam_psnr: PSNR in dB at the seams, against the whole picture, that the overlap must reach by measurement. What
            is measured is kept in the cache.
        room: What the memory holds; what is planned for the runner unless given.
        cache: Where measured seams lie; unless given, a drawer of the cache.
        progress: Told tiles, and what is measured.

    Raises:
        InputError: A tile or an overlap that is no size.
    """

    def __init__(
        self,
        runner: Runner,
        tile: Tile = "auto",
        overlap: int | None = None,
        seam_psnr: float = SEAM_PSNR,
        room: Room | None = None,
        cache: Cache | None = None,
        progress: Progress = silent,
    ) -> None:
        if overlap is not None and overlap < 0:
            raise InputError(f"An overlap of {overlap} pixels leaves gaps.", fix="Give 0 or more.")
        self.runner, self.progress = runner, progress
        self.asked = {"tile": tile, "overlap": overlap, "seam_psnr": seam_psnr}
        self.room = room or PlannedRoom(runner, progress=progress)
        self._wanted = _asked(tile, runner.spec.pad_multiple)
        self._off, self._auto, self._cache = tile == "off", tile == "auto", cache
        self._overlap, self._seam_psnr = overlap, seam_psnr
        self._seams: SeamTable | None = None
        self._told: set[int] = set()
        self._advised = False

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.runner.spec

    def describe(self) -> dict[str, Any]:
        """That of the runner inside."""
        return self.runner.describe()

    def run(self, images: Images) -> Images:
        """See `Runner.run`. Where memory runs out all the same, tiles are halved, unless a size was asked for.

        Raises:
            InputError: The images do not fit the model, or a given overlap not the tile.
        """
        shape = restored_shape(self.runner, images)
        return assembled(self.parts(images, 4 * math.prod(shape)), shape)

    def parts(self, images: Images, beside: int = 0) -> Iterator[Part]:
        """`run` in finished parts, which do not overlap and fill the picture: one where it goes whole.

        Where memory runs out, smaller tiles begin anew, and their parts are those that count.

        Args:
            images: See `Runner.run`.
            beside: Bytes that the caller will hold beside images and tiles: what it makes of the parts.

        Raises:
            InputError: The images do not fit the model, or a given overlap not the tile.
        """
        check_images(images, self.spec)
        while True:
            chosen = self.plan(images.shape[2], images.shape[3], beside + images.nbytes)
            try:
                if chosen is None:
                    yield 0, 0, self.runner.run(images)
                else:
                    yield from restored_parts(self.runner, images, *chosen, self.progress)
                return
            except Exception as error:
                if not self._auto or not is_out_of_memory(error):
                    raise
                tried = images.shape[2:] if chosen is None else (chosen[0].rows.tile, chosen[0].columns.tile)
                smaller = max(tried) // 2 // self.spec.pad_multiple * self.spec.pad_multiple
                if smaller < SMALLEST * self.spec.pad_multiple:
                    raise
                LOG.warning("Memory ran out: tiles of %d pixels from here on", smaller)
                self._wanted = smaller, smaller

    def plan(self, rows: int, columns: int, beside: int = 0) -> tuple[TilePlan, int] | None:
        """How a picture is cut and how many tiles are run at once; None where it goes through as it is.

        Args:
            rows: Height of the picture (pixels).
            columns: Its width.
            beside: Bytes that are taken beside the tiles.

        Raises:
            InputError: A given overlap does not fit the tile.
            EnvironmentProblem: Not even a small tile fits.
        """
        multiple = self.spec.pad_multiple
        padded = _up(rows, multiple), _up(columns, multiple)
        if self._off:
            return None
        choices = self._choices(padded, beside)
        whole = [choice for choice in choices if choice.holds(padded)]
        if whole and not taken_sizes(self.runner):
            return None
        options = []
        for choice in whole or choices:
            overlap = 0 if whole else self._overlap_of(choice.greatest, padded)
            plan = plan_tiles((rows, columns), choice.greatest, overlap, multiple, choice.least)
            options.append((plan.pixels, plan.count, choice.batch, plan))
        *_, batch, plan = min(options, key=lambda option: option[:2])
        if plan.count > 1 and self.spec.tiling != "supported" and not self._advised:
            self._advised = True
            LOG.warning("%s looks at the whole picture: tiles of it may differ in tone where they meet", self.spec.name)
        return plan, batch

    def _choices(self, padded: tuple[int, int], beside: int) -> list[_Choice]:
        """Tiles of every kind that the runner takes, as large as was asked for or as the memory holds."""
        multiple = self.spec.pad_multiple
        sizes: Sequence[Profile] = taken_sizes(self.runner)
        if not sizes:
            return [_Choice((multiple, multiple), self._greatest((multiple, multiple), padded, self.room, beside), 1)]
        found = []
        for size in sizes:
            (_, *smallest), (most, *largest) = size.minimum, size.maximum
            least = smallest[0], smallest[1]
            limit = max(min(padded[0], largest[0]), least[0]), max(min(padded[1], largest[1]), least[1])
            found.append(_Choice(least, self._greatest(least, limit), most))
        return found

    def _greatest(
        self, least: tuple[int, int], limit: tuple[int, int], room: Room | None = None, beside: int = 0
    ) -> tuple[int, int]:
        """The largest tile between two sizes that was asked for, or that the memory holds.

        An engine has room for its profiles: it is asked for none.
        """
        if self._wanted is not None:
            wanted = self._wanted
        elif room is None or room.fits(*limit, beside=beside):
            return limit
        else:
            wanted = (room.largest_tile(self.spec.pad_multiple, beside),) * 2
        return max(min(wanted[0], limit[0]), least[0]), max(min(wanted[1], limit[1]), least[1])

    def _overlap_of(self, tile: tuple[int, int], padded: tuple[int, int]) -> int:
        """The overlap for tiles of a size: the one given, or the smallest that reaches the dB."""
        multiple = self.spec.pad_multiple
        side = min(size for size, length in zip(tile, padded, strict=True) if size < length)
        if self._overlap is not None:
            overlap = _up(self._overlap, multiple)
            if overlap >= side:
                raise InputError(
                    f"Tiles of {tile[0]}x{tile[1]} pixels cannot overlap by {overlap}.",
                    why=f"Overlaps are rounded up to {multiple}, which {self.spec.name} needs.",
                    fix=f"Give --overlap {side - multiple} or less, or larger tiles.",
                )
            return overlap
        if self._seams is None:
            self._seams = seam_table(self.runner, self._cache, self.progress)
        seams = self._seams.figures
        overlap = self._seams.choose(self._seam_psnr + MARGIN) or max(seams, default=0)
        if overlap > side // 2:
            overlap = side // 2 // multiple * multiple
        measured = f"{seams[overlap]:.1f} dB" if overlap in seams else "of unknown quality"
        if overlap not in self._told:
            self._told.add(overlap)
            if seams.get(overlap, 0.0) < self._seam_psnr:
                warnings.warn(
                    f"Tiles of {tile[0]}x{tile[1]} pixels overlap by {overlap}: seams are {measured} on the samples, "
                    f"{self._seam_psnr:g} dB were asked for. No larger overlap was measured or fits.",
                    SeamWarning,
                    stacklevel=2,
                )
            else:
                LOG.info("Tiles overlap by %d pixels: seams of %s on the samples", overlap, measured)
        return overlap


def _asked(tile: Tile, multiple: int) -> tuple[int, int] | None:
    """The (rows, columns) that a user asks for, as multiples; None where it is a word.

    Raises:
        InputError: No size, nor one of the words.
    """
    if tile in ("auto", "off"):
        return None
    sides = tile if isinstance(tile, tuple) else (tile, tile)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"{tile!r} is no tile.", fix="Give 'auto', 'off', a side in pixels or a pair of rows and columns."
        )
    return _up(int(sides[0]), multiple), _up(int(sides[1]), multiple)


def _up(size: int, multiple: int) -> int:
    """The next multiple."""
    return size + -size % multiple
