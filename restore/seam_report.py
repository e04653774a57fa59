"""Tiles against the whole picture: a rung of the ladder, and where they differ as a part of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np

from ..engines.runner import Images, Runner
from ..errors import InputError
from ..parity.drawings import amplification, difference_map, picture
from ..parity.images import ParityImage, load_images
from ..parity.metrics import max_steps, nonfinite
from ..parity.report import Measure, ParityReport, Rung
from ..parity.tables import decibels
from ..progress import Progress, silent
from .seams import SEAM_PSNR, seam_psnr
from .tiled_runner import TiledRunner
from .tiles import TilePlan
from .tiling import taken_sizes

__all__ = ["JudgedTiles", "judge_tiles", "seam_section", "tile_images", "with_tiles"]

RUNG = "tiles = whole picture, at the seams"

LARGEST = 256
"""Sides of pictures that are restored whole and in tiles, unless others are asked for; input pixels."""

LINE = (0.0, 0.6, 1.0)
"""Colour of a seam on the map of differences."""


@dataclass(frozen=True)
class JudgedTiles:
    """One picture, whole and in tiles.

    Attributes:
        image: The picture.
        plan: Where it was cut.
        whole: Restored at once, ``[C, s*H, s*W]``.
        tiles: Restored in tiles.
        psnr: dB near the seams.
    """

    image: ParityImage
    plan: TilePlan
    whole: Images
    tiles: Images
    psnr: float

    @property
    def measure(self) -> Measure:
        """As a measure of a rung; the steps are those of the whole picture."""
        _, height, width = self.image.pixels.shape
        steps = max_steps(self.whole, self.tiles)
        return Measure(self.image.name, height, width, self.psnr, steps, nonfinite(self.tiles))


def tile_images(
    runner: Runner, paths: Sequence[str | Path] = (), sizes: Sequence[tuple[int, int]] = ()
) -> list[ParityImage]:
    """Pictures that are large enough to be cut, and not larger than the runner takes whole.

    Args:
        runner: What restores.
        paths: Image files and folders; the packaged samples where empty.
        sizes: (rows, columns) of the crops; where empty, as large as does.

    Raises:
        ImageError: A path holds no readable image.
    """
    taken = taken_sizes(runner)
    largest = max((each.maximum[1:] for each in taken), key=lambda sides: sides[0] * sides[1], default=None)
    rows, columns = largest or (LARGEST, LARGEST)
    return load_images(runner.spec, paths, sizes or [(min(rows, LARGEST), min(columns, LARGEST))])


def judge_tiles(
    runner: Runner,
    images: Sequence[ParityImage],
    tile: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> list[JudgedTiles]:
    """Restores pictures whole and in tiles, whose overlap is the one that `restore` takes.

    Args:
        runner: What restores.
        images: The pictures; one that is no larger than a tile is left out.
        tile: Greatest (rows, columns) of a tile; half of the picture's where None.
        progress: Told each picture and tile.

    Raises:
        InputError: No picture is larger than a tile.
    """
    judged = []
    for number, image in enumerate(images, 1):
        progress(f"{image.name} in tiles ({number} of {len(images)})")
        batch = image.pixels[None]
        _, rows, columns = image.pixels.shape
        tiled = TiledRunner(runner, tile or (-(-rows // 2), -(-columns // 2)), progress=progress)
        chosen = tiled.plan(rows, columns)
        if chosen is None or chosen[0].count == 1:
            continue
        whole, found = runner.run(batch), tiled.run(batch)
        at_seams = seam_psnr(whole, found, chosen[0], runner.spec.scale)
        judged.append(JudgedTiles(image, chosen[0], whole[0], found[0], at_seams))
    if not judged:
        sizes = ", ".join("x".join(map(str, image.pixels.shape[1:])) for image in images)
        raise InputError(
            f"No picture is larger than a tile: the pictures have {sizes} pixels.",
            why="A file or an engine of one size takes only tiles of that size, and no larger picture whole.",
            fix="Choose larger pictures (--images, --size) or smaller tiles (--tile).",
        )
    return judged


def with_tiles(report: ParityReport, judged: Sequence[JudgedTiles], floor: float = SEAM_PSNR) -> ParityReport:
    """A report with the rung of the tiles at its end."""
    note = "; ".join(dict.fromkeys(str(each.plan) for each in judged))
    rung = Rung(RUNG, floor, tuple(each.measure for each in judged), note=note)
    return replace(report, rungs=(*report.rungs, rung))


def seam_section(judged: Sequence[JudgedTiles]) -> str:
    """What the tiles change, as a part of the report's page: pictures of the differences with the seams as lines."""
    return f"<h2>Seams of tiles</h2>{''.join(map(_figures, judged))}"


def _figures(judged: JudgedTiles) -> str:
    factor = amplification(judged.whole, judged.tiles)
    difference = _lined(difference_map(judged.whole, judged.tiles, factor), judged.plan, judged.image)
    told = f"difference of tiles and whole, amplified {factor:,} times, seams blue" if factor else "no difference"
    shown = [("restored in tiles", judged.tiles), (told, difference)]
    figures = "".join(
        f'<figure><img src="{picture(pixels)}" alt="{escape(text)} of {escape(judged.image.name)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for text, pixels in shown
    )
    title = f"{judged.image.name}: {judged.plan}, {decibels(judged.psnr)} at the seams"
    return f'<h3>{escape(title)}</h3><div class="row">{figures}</div>'


def _lined(difference: Images, plan: TilePlan, image: ParityImage) -> Images:
    """The map with a line where one tile hands over to the next."""
    lined = np.broadcast_to(difference, (3, *difference.shape[1:])).copy()
    scale = lined.shape[1] // image.pixels.shape[1]
    colour = np.array(LINE, np.float32)[:, None, None]
    for seam in plan.rows.seams:
        lined[:, round(seam * scale), :][..., None] = colour
    for seam in plan.columns.seams:
        lined[:, :, round(seam * scale)][..., None] = colour
    return lined
