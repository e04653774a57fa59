"""A picture through a runner in tiles: band by band, so that no more is held than a row of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ..engines.artifact import EngineArtifact
from ..engines.profiles import Profile, static_profile
from ..engines.runner import Images, Runner
from ..export.artifact import OnnxArtifact
from ..images.resizing import pad_to_size
from ..progress import Progress, silent
from .tiles import TilePlan

__all__ = ["restored_bands", "run_in_tiles", "taken_sizes"]


def taken_sizes(runner: Runner) -> tuple[Profile, ...]:
    """The sizes a runner takes: an engine's profiles, the only size of a static file; empty for any size."""
    artifact = getattr(runner, "artifact", None)
    if isinstance(artifact, EngineArtifact):
        return artifact.profiles
    fixed = static_profile(artifact) if isinstance(artifact, OnnxArtifact) else None
    return () if fixed is None else (fixed,)


def restored_bands(
    runner: Runner, images: Images, plan: TilePlan, batch: int = 1, progress: Progress = silent
) -> Iterator[Images]:
    """Restores images in tiles, and gives the rows that are finished from the top to the bottom.

    Args:
        runner: What restores a tile.
        images: ``[B, C, H, W]`` of the plan's size.
        plan: Where to cut.
        batch: Tiles of an image to run together.
        progress: Told each tile.

    Yields:
        ``[B, C, h, s*W]``; all h add up to s*H.
    """
    scale, (number, channels) = runner.spec.scale, images.shape[:2]
    rows, columns = plan.rows, plan.columns
    done, unfinished = 0, np.zeros((number, channels, 0, columns.length * scale), np.float32)
    for row in range(len(rows.origins)):
        top, bottom = rows.span(row)
        band = np.zeros((number, channels, (bottom - top) * scale, columns.length * scale), np.float32)
        band[..., : unfinished.shape[2], :] = unfinished
        down = rows.weights(row, scale)[:, None]
        across = iter(range(len(columns.origins)))
        while chosen := list(islice(across, batch)):
            progress(str(plan), done + 1, plan.count)
            spans = [columns.span(column) for column in chosen]
            tiles = [pad_to_size(images[..., top:bottom, left:right], rows.tile, columns.tile) for left, right in spans]
            found = runner.run(np.ascontiguousarray(np.concatenate(tiles)))
            for place, (column, (left, right)) in enumerate(zip(chosen, spans, strict=True)):
                tile = found[place * number : (place + 1) * number]
                weighted = tile[..., : (bottom - top) * scale, : (right - left) * scale] * down
                weighted *= columns.weights(column, scale)
                band[..., left * scale : right * scale] += weighted
            done += len(chosen)
        last = row + 1 == len(rows.origins)
        finished = band.shape[2] if last else (rows.origins[row + 1] - top) * scale
        yield band[..., :finished, :]
        unfinished = band[..., finished:, :]


def run_in_tiles(runner: Runner, images: Images, plan: TilePlan, batch: int = 1, progress: Progress = silent) -> Images:
    """`restored_bands` as whole images, ``[B, C, s*H, s*W]``."""
    scale = runner.spec.scale
    output = np.empty((*images.shape[:2], *(side * scale for side in images.shape[2:])), np.float32)
    top = 0
    for band in restored_bands(runner, images, plan, batch, progress):
        output[..., top : top + band.shape[2], :] = band
        top += band.shape[2]
    return output
