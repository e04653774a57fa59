"""A picture through a runner in tiles, whose finished parts are handed on one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from ..engines.artifact import EngineArtifact
from ..engines.profiles import Profile, static_profile
from ..engines.runner import Images, Runner
from ..export.artifact import OnnxArtifact
from ..images.resizing import pad_to_size
from ..progress import Progress, silent
from .tiles import TilePlan

__all__ = ["Part", "assembled", "restored_parts", "restored_shape", "run_in_tiles", "taken_sizes"]

Part = tuple[int, int, Images]
"""A finished rectangle of restored images: its first row and column, and its pixels ``[B, C, h, w]``."""


def taken_sizes(runner: Runner) -> tuple[Profile, ...]:
    """The sizes a runner takes: an engine's profiles, the only size of a static file; empty for any size."""
    artifact = getattr(runner, "artifact", None)
    if isinstance(artifact, EngineArtifact):
        return artifact.profiles
    fixed = static_profile(artifact) if isinstance(artifact, OnnxArtifact) else None
    return () if fixed is None else (fixed,)


def restored_parts(
    runner: Runner, images: Images, plan: TilePlan, batch: int = 1, progress: Progress = silent
) -> Iterator[Part]:
    """Restores images in tiles, and gives what is finished of each: parts that do not overlap and fill the picture.

    Beside the tile in work only the ramps towards the next tile and the next row of tiles are held.

    Args:
        runner: What restores a tile.
        images: ``[B, C, H, W]`` of the plan's size.
        plan: Where to cut.
        batch: Tiles of an image to run together.
        progress: Told each tile.
    """
    scale, number = runner.spec.scale, len(images)
    rows, columns = plan.rows, plan.columns
    done, above = 0, dict[int, Images]()
    for row in range(len(rows.origins)):
        (top, bottom), (y, y_alone), (y_shared, y_end) = (
            rows.span(row),
            rows.ramp(row - 1, scale),
            rows.ramp(row, scale),
        )
        down = rows.weights(row, scale)[y - top * scale : y_end - top * scale, None]
        below: dict[int, Images] = {}
        beside: Images | float = 0.0
        across = iter(range(len(columns.origins)))
        while chosen := list(islice(across, batch)):
            progress(str(plan), done + 1, plan.count)
            spans = [columns.span(column) for column in chosen]
            tiles = [pad_to_size(images[..., top:bottom, left:right], rows.tile, columns.tile) for left, right in spans]
            found = runner.run(np.ascontiguousarray(np.concatenate(tiles)))
            for place, (column, (left, _)) in enumerate(zip(chosen, spans, strict=True)):
                (x, x_alone), (x_shared, x_end) = columns.ramp(column - 1, scale), columns.ramp(column, scale)
                used = slice(x - left * scale, x_end - left * scale)
                tile = found[place * number : (place + 1) * number, :, y - top * scale : y_end - top * scale, used]
                part = tile * down
                part *= columns.weights(column, scale)[used]
                part[..., : x_alone - x] += beside
                part, beside = part[..., : x_shared - x], part[..., x_shared - x :]
                part[..., : y_alone - y, :] += above.get(column, 0.0)
                below[column] = part[..., y_shared - y :, :].copy()
                yield y, x, part[..., : y_shared - y, :]
            done += len(chosen)
        above = below


def assembled(parts: Iterable[Part], shape: tuple[int, ...]) -> Images:
    """Images ``[B, C, H, W]`` of a shape that parts fill."""
    whole: Images | None = None
    for top, left, part in parts:
        if part.shape == shape:
            whole = part
            continue
        if whole is None:
            whole = np.empty(shape, np.float32)
        whole[..., top : top + part.shape[2], left : left + part.shape[3]] = part
    assert whole is not None
    return whole


def run_in_tiles(runner: Runner, images: Images, plan: TilePlan, batch: int = 1, progress: Progress = silent) -> Images:
    """`restored_parts` as whole images, ``[B, C, s*H, s*W]``."""
    return assembled(restored_parts(runner, images, plan, batch, progress), restored_shape(runner, images))


def restored_shape(runner: Runner, images: Images) -> tuple[int, ...]:
    """Shape of the restored images."""
    return (*images.shape[:2], *(side * runner.spec.scale for side in images.shape[2:]))
