"""How well tiles fit together, in dB, against the overlap: measured once a model and precision, and kept.

How far a pixel's influence reaches is measured and not derived: the attention windows of a deep network reach over the
whole picture, but hardly anything of what lies far away arrives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..cache import NETWORK, SEAMS, Cache
from ..engines.runner import Images, Runner
from ..images.files import read_image, sample_images
from ..images.picture import to_channels
from ..json_form import json_number
from ..parity.metrics import psnr
from ..progress import Progress, silent
from .identity import runner_facts
from .tiles import Cuts, TilePlan
from .tiling import run_in_tiles, taken_sizes

__all__ = ["BAND", "SEAM_PSNR", "SeamTable", "SeamWarning", "known_seams", "measure_seams", "seam_psnr", "seam_table"]

SEAM_PSNR = 60.0
"""dB at the seams that are asked for unless others are: below the rounding to 8 bits, 58.9 dB."""

BAND = 8
"""Input pixels on either side of a seam whose error is its own."""

ENOUGH = 96.0
"""dB from which no larger overlap is measured: half a step of 16 bits."""

ACROSS, ALONG = 128, 64
"""Input pixels of a tile that is measured, across the seam and along it; more where windows are large."""

PICTURES = 2


class SeamWarning(UserWarning):
    """No overlap that can be used reaches the dB that were asked for."""


@dataclass(frozen=True)
class SeamTable:
    """Seams against overlap.

    Attributes:
        figures: PSNR at the seams in dB by overlap in input pixels, ascending; the worst of pictures and directions.
    """

    figures: Mapping[int, float] = field(default_factory=dict)

    def choose(self, target: float) -> int | None:
        """The smallest overlap from which on all reach a PSNR in dB; None if there is none."""
        chosen = None
        for overlap, found in sorted(self.figures.items(), reverse=True):
            if not found >= target:
                break
            chosen = overlap
        return chosen

    def to_json(self) -> dict[str, float | str]:
        """PSNR by overlap as a JSON object."""
        return {str(overlap): json_number(found) for overlap, found in self.figures.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, float | str]) -> SeamTable:
        """Inverse of `to_json`."""
        return cls({int(overlap): float(found) for overlap, found in data.items()})


def seam_psnr(truth: Images, found: Images, plan: TilePlan, scale: int) -> float:
    """PSNR (peak 1) of the pixels near seams, of the worst image; inf where there are none.

    Args:
        truth: The whole picture restored, ``[B, C, s*H, s*W]``.
        found: The same in tiles.
        plan: Where it was cut.
        scale: Output pixels per input pixel.
    """
    near = [np.zeros(side.length * scale, bool) for side in (plan.rows, plan.columns)]
    for side, mask in zip((plan.rows, plan.columns), near, strict=True):
        for seam in side.seams:
            mask[max(0, round((seam - BAND) * scale)) : round((seam + BAND) * scale)] = True
    chosen = near[0][:, None] | near[1]
    return psnr(truth[..., chosen][..., None, :], found[..., chosen][..., None, :]) if chosen.any() else math.inf


def measure_seams(runner: Runner, progress: Progress = silent) -> SeamTable:
    """Restores pictures in two tiles with growing overlap, and compares them with a tile whose middle the seam is.

    So no picture need be larger than the runner takes. The overlap grows in steps of the model's multiple until
    `ENOUGH` is reached, or half a tile.

    Args:
        runner: What restores.
        progress: Told each overlap.
    """
    multiple = runner.spec.pad_multiple
    tiles = _tile(runner, (ALONG, ACROSS)), _tile(runner, (ACROSS, ALONG))
    pictures = _pictures(runner.spec.channels, 2 * max(max(tile) for tile in tiles))
    steps = min(tile[axis] for axis, tile in ((1, tiles[0]), (0, tiles[1]))) // 2 // multiple
    truths: dict[tuple[int, int], Images] = {}
    figures: dict[int, float] = {}
    for step in range(1, steps + 1):
        progress("measuring seams", step, steps)
        overlap = step * multiple
        figures[overlap] = min(_seam(runner, pictures, tiles[1 - axis], axis, overlap, truths) for axis in (0, 1))
        if figures[overlap] >= ENOUGH:
            break
    return SeamTable(figures)


def _tile(runner: Runner, wanted: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of a tile to measure, as the runner takes it: of several profiles, in the one of most pixels."""
    multiple = runner.spec.pad_multiple
    rows, columns = (max(side, 4 * multiple) // multiple * multiple for side in wanted)
    sizes = taken_sizes(runner)
    if not sizes:
        return rows, columns
    _, least, most = max((each.maximum[1] * each.maximum[2], each.minimum, each.maximum) for each in sizes)
    return min(max(rows, least[1]), most[1]), min(max(columns, least[2]), most[2])


def _pictures(channels: int, side: int) -> Images:
    """Packaged samples, mirrored on until they are large enough: ``[B, C, side, side]``."""
    chosen = []
    for _, path in sample_images()[:PICTURES]:
        pixels = to_channels(read_image(path).pixels, channels)
        missing = [(0, max(0, side - size)) for size in pixels.shape[1:]]
        chosen.append(np.pad(pixels, [(0, 0), *missing], mode="symmetric")[:, :side, :side])
    return np.stack(chosen)


def _seam(
    runner: Runner,
    pictures: Images,
    tile: tuple[int, int],
    axis: int,
    overlap: int,
    truths: dict[tuple[int, int], Images],
) -> float:
    """PSNR in dB at the seam of two tiles, against a tile around the seam; `truths` keeps those by axis and place."""
    scale, multiple, side = runner.spec.scale, runner.spec.pad_multiple, tile[axis]
    cuts = [Cuts(size, size, (0,)) for size in tile]
    cuts[axis] = Cuts(2 * side - overlap, side, (0, side - overlap))
    plan = TilePlan(*cuts)
    start = overlap  # of the first tile; the second begins at `side`
    middle = (side + overlap // 2 - side // 2) // multiple * multiple

    def cropped(first: int) -> Images:
        place = [slice(0, tile[0]), slice(0, tile[1])]
        place[axis] = slice(first, first + side)
        return np.ascontiguousarray(pictures[..., place[0], place[1]])

    if (axis, middle) not in truths:
        truths[axis, middle] = runner.run(cropped(middle))
    both = np.concatenate([cropped(start), cropped(side)[_from(overlap, axis)]], axis - 2)
    found = run_in_tiles(runner, both, plan)
    truth = found.copy()
    truth[_from((middle - start) * scale, axis, side * scale)] = truths[axis, middle]
    return seam_psnr(truth, found, plan, scale)


def _from(first: int, axis: int, length: int | None = None) -> tuple[Any, ...]:
    """The index of pixels from one on, along rows (0) or columns (1)."""
    chosen = slice(first, None if length is None else first + length)
    return (..., chosen, slice(None)) if axis == 0 else (..., chosen)


def seam_table(runner: Runner, cache: Cache | None = None, progress: Progress = silent) -> SeamTable:
    """`measure_seams`, kept for the next time where the runner can be told from others.

    Args:
        runner: What restores.
        cache: Where tables lie; unless given, a drawer of the cache.
        progress: Told each overlap that is measured.
    """
    facts = runner_facts(runner)
    if facts is None:
        return measure_seams(runner, progress)
    cache = cache or Cache(drawer=SEAMS)
    entry = cache.find(facts)
    if entry is not None:
        return SeamTable.from_json(entry.details["seam_psnr"])
    table = measure_seams(runner, progress)
    kept = table.to_json()
    cache.store(facts, json.dumps(kept).encode(), {"seam_psnr": kept})
    return table


def known_seams(sha256: str, cache: Cache | None = None) -> SeamTable | None:
    """The latest table of a file, by the digest of its bytes; None where nothing was measured yet."""
    entries = (cache or Cache(drawer=SEAMS)).entries()
    found = next((entry for entry in entries if entry.facts.get(NETWORK) == sha256), None)
    return None if found is None else SeamTable.from_json(found.details["seam_psnr"])
