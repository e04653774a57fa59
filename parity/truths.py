"""Ground truth: pictures as they should come out, each with the input a model is to restore it from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..engines.runner import Images
from ..errors import ImageError, InputError
from ..images.files import list_images, read_image, sample_images
from ..images.picture import to_channels
from ..images.resizing import resize_bicubic
from ..models.spec import ModelSpec
from .images import middle

__all__ = ["LARGEST_INPUT", "TruthPair", "degrade", "own_pairs", "sample_pairs", "without_truth"]

SEED = 0

LARGEST_INPUT = (512, 512)
"""Rows and columns up to which an input is judged whole: PyTorch needs gigabytes for a photograph."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TruthPair:
    """A picture as it should come out, and what it is to be restored from.

    Attributes:
        name: What a report calls it.
        given: The model's input, float32 ``[C, H, W]`` in 0..1.
        truth: The picture, float32 ``[C, scale * H, scale * W]`` in 0..1.
    """

    name: str
    given: Images
    truth: Images


def without_truth(spec: ModelSpec, pairs: bool = False) -> str | None:
    """Why a model cannot be judged against ground truth, in words; None where it can.

    Args:
        spec: The model's spec.
        pairs: Whether the inputs that belong to the ground truth are at hand, so that none has to be made.
    """
    if spec.channels not in (1, 3):
        return f"there is no ground truth of {spec.channels} channels: pictures are grey or RGB"
    if pairs or spec.task == "super-resolution" or (spec.task == "denoising" and spec.noise_level is not None):
        return None
    return f"what degrades a picture of the task {spec.task} is not known"


def degrade(truth: Images, spec: ModelSpec) -> Images | None:
    """The input from which a model is to restore `truth` [C, H, W]; None where that is not known (`without_truth`).

    Super-resolution: MATLAB bicubic, rounded to 8 bits. Denoising at a known level: Gaussian noise of fixed seed.
    """
    if without_truth(spec) is not None:
        return None
    if spec.task == "super-resolution":
        return resize_bicubic(truth, 1 / spec.scale, quantize=True)
    noise = np.random.default_rng(SEED).standard_normal(truth.shape)
    return (truth + noise * (spec.noise_level or 0) / 255).astype(np.float32)


def sample_pairs(spec: ModelSpec) -> list[TruthPair]:
    """The packaged pictures and what is made of them; empty where that is not known (`without_truth`)."""
    if without_truth(spec) is not None:
        return []
    return [_degraded(name, path, spec) for name, path in sample_images()]


def own_pairs(
    spec: ModelSpec,
    truths: Sequence[str | Path],
    inputs: Sequence[str | Path] = (),
    size: tuple[int, int] | None = None,
) -> list[TruthPair]:
    """Ground truth of the user's, and the inputs that belong to it.

    Args:
        spec: The model's spec.
        truths: Files and folders of pictures as they should come out. Of several, those that cannot be read are left
            out, and that is logged.
        inputs: Files and folders of what each is to be restored from: of the same name, but for the suffix and an
            ending ``x2``, ``_x2`` (the scale). Where empty they are made, by `degrade`.
        size: (rows, columns) that the inputs must have; larger ones are cut to their middle, smaller ones left out.
            Where None, those above `LARGEST_INPUT` are cut to that.

    Raises:
        InputError: The task's inputs cannot be made; a picture has no input, or one of another size.
        ImageError: A path is missing, or no picture can be read.
    """
    if reason := without_truth(spec, bool(inputs)):
        raise InputError(
            f"{spec.name} cannot be judged against ground truth: {reason}.",
            fix="Leave --ground-truth out."
            if spec.channels not in (1, 3)
            else "Give the inputs that belong to the pictures with --images.",
        )
    files = list_images(truths)
    partners = _partners(spec, files, list_images(inputs)) if inputs else {}
    found = []
    for file in files:
        try:
            pair = _read_pair(file, partners[file], spec) if inputs else _degraded(file.name, file, spec)
        except ImageError as error:
            if len(files) == 1:
                raise
            LOG.info(f"Skipped: {error.what}")
            continue
        if (cut := _cut(pair, spec.scale, size)) is not None:
            found.append(cut)
    if not found:
        raise ImageError(
            f"None of {len(files)} pictures can serve as ground truth.",
            fix=f"Name larger ones: inputs have {size[0]}x{size[1]} here." if size else "Name others.",
        )
    return found


def _degraded(name: str, path: Path, spec: ModelSpec) -> TruthPair:
    pixels = to_channels(read_image(path).pixels, spec.channels)
    height, width = (side // spec.scale * spec.scale for side in pixels.shape[1:])
    if not (height and width):
        raise ImageError(f"{path} is smaller than a pixel of the input.", fix="Name a larger picture.")
    truth = np.ascontiguousarray(pixels[:, :height, :width])
    given = degrade(truth, spec)
    assert given is not None  # `without_truth` was asked
    return TruthPair(name, given, truth)


def _read_pair(truth: Path, given: Path, spec: ModelSpec) -> TruthPair:
    """A picture and its input; what the picture has beyond whole pixels of the input is left out, as benchmarks do."""
    whole, small = (to_channels(read_image(path).pixels, spec.channels) for path in (truth, given))
    height, width = (side * spec.scale for side in small.shape[1:])
    if tuple(side // spec.scale for side in whole.shape[1:]) != small.shape[1:]:
        raise InputError(
            f"{truth} has {whole.shape[1]}x{whole.shape[2]} pixels, its input {given} has "
            f"{small.shape[1]}x{small.shape[2]}: not {spec.scale} times fewer.",
            fix="Give the inputs of this scale.",
        )
    return TruthPair(truth.name, small, np.ascontiguousarray(whole[:, :height, :width]))


def _partners(spec: ModelSpec, truths: Sequence[Path], inputs: Sequence[Path]) -> dict[Path, Path]:
    """The input of every picture, by name."""
    known = {path.stem: path for path in inputs}
    endings = ("", f"x{spec.scale}", f"_x{spec.scale}")
    found = {truth: known[name] for truth in truths for end in endings if (name := truth.stem + end) in known}
    if lonely := [truth.name for truth in truths if truth not in found]:
        raise InputError(
            f"{len(lonely)} of {len(truths)} pictures of the ground truth have no input among --images, "
            f"{', '.join(lonely[:3])} among them.",
            why=f"An input has the picture's name, or that with {' or '.join(endings[1:])} behind it.",
            fix="Name the inputs so, or leave --images out: they are made from the pictures then.",
        )
    return found


def _cut(pair: TruthPair, scale: int, size: tuple[int, int] | None) -> TruthPair | None:
    """The middle of a pair, if it is larger than may be; None where it is smaller than must be."""
    rows, columns = pair.given.shape[1:]
    height, width = size or LARGEST_INPUT
    if size is not None and (rows < height or columns < width):
        LOG.info(f"Skipped: {pair.name} gives an input of {rows}x{columns}; {height}x{width} is needed")
        return None
    if rows <= height and columns <= width:
        return pair
    LOG.info(f"Of {pair.name} the middle is judged: {height}x{width} of the {rows}x{columns} of its input")
    given = middle(pair.given, (height, width))
    top, left = (max(0, side - kept) // 2 for side, kept in zip((rows, columns), (height, width), strict=True))
    bottom, right = top + given.shape[1], left + given.shape[2]
    truth = pair.truth[:, top * scale : bottom * scale, left * scale : right * scale]
    return replace(pair, given=given, truth=np.ascontiguousarray(truth))
