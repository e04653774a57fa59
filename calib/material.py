"""What a calibration looks at: crops to take ranges from, and held-out pictures to judge on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..engines.runner import Images
from ..errors import InputError
from ..images.files import sample_images
from ..parity.images import middle, verification_images
from ..parity.truths import degrade, without_truth
from .crops import Reader, choose_crops, list_files
from .quality import Picture, fit_to_graph

if TYPE_CHECKING:
    from ..export import OnnxArtifact

__all__ = ["CROP_SIDE", "Material", "gather"]

CROP_SIDE = 64
"""Least side of a calibration crop, in pixels of the network's input."""

PICTURE_SIDE = 96
"""Greatest side of a picture to judge on, in pixels of the network's input."""


@dataclass
class Material:
    """The images of a calibration.

    Attributes:
        files: Files that calibration crops are cut from, in order.
        as_truth: Whether those files show what is to be restored: their crops are degraded first.
        pictures: The pictures to judge on.
        reader: Reads the files; knows those it had to skip.
        notes: What a reader of the report should know.
    """

    files: list[Path]
    as_truth: bool
    pictures: list[Picture]
    reader: Reader
    notes: list[str] = field(default_factory=list)
    images: int = 0
    crops: int = 0
    digest: str = ""

    def inputs(self, artifact: OnnxArtifact, wanted: int) -> Iterator[Images]:
        """Calibration inputs of the graph, ``[1, C, H, W]``, one at a time; the same every time.

        Files are read until there are `wanted` crops, as many of each as it takes. Counts and digest are those of the
        last complete round.

        Raises:
            InputError: No file could be read.
        """
        each = max(1, -(-wanted // max(1, len(self.files))))
        digest, images, crops = hashlib.sha256(), 0, 0
        for _, pixels in self.reader.read(self.files):
            images += 1
            for crop in self._crops(pixels, artifact, min(each, wanted - crops), crops):
                fitted = fit_to_graph(crop, artifact)
                digest.update(str(fitted.shape).encode() + fitted.tobytes())
                crops += 1
                yield fitted
            if crops >= wanted:
                break
        if not crops:
            raise _nothing_readable(self.reader)
        self.images, self.crops, self.digest = images, crops, digest.hexdigest()

    def _crops(self, pixels: Images, artifact: OnnxArtifact, count: int, first: int) -> Iterator[Images]:
        """Crops of a picture as inputs of the model."""
        spec = artifact.spec
        scale = spec.scale if self.as_truth else 1
        least = CROP_SIDE + -CROP_SIDE % spec.pad_multiple
        size = (artifact.fixed_sizes.get("height", least) * scale, artifact.fixed_sizes.get("width", least) * scale)
        adds_noise = spec.task == "denoising"
        for crop in choose_crops(pixels, size, count, first):
            if not (self.as_truth or adds_noise):
                yield crop
                continue
            degraded = degrade(_whole(crop, scale), spec)
            yield crop if degraded is None else degraded


def gather(
    artifact: OnnxArtifact,
    images: Sequence[str | Path],
    ground_truth: Sequence[str | Path],
    held_out: int,
    seed: int,
) -> Material:
    """Divides files into those to calibrate on and those to judge on.

    ``images`` are inputs of the model; to a denoiser's the noise it was trained for is added. ``ground_truth`` shows
    what is to be restored, and is degraded as the task does. Where both are given, ranges come from the images and
    judgement from the ground truth; where one is given, some of its files are held out to judge on; where none is, the
    packaged samples serve for both. What `verify` looks at is always among the judged pictures: the samples restored,
    wherever the task is known, and small crops of them.

    Args:
        artifact: The float file.
        images: Files, folders, lists.
        ground_truth: Files, folders, lists.
        held_out: Number of files to judge on, at least 1.
        seed: Of the order of the files.

    Raises:
        InputError: No file can be read, or the task's degradation is not known and ground truth was given.
        ImageError: A path is missing.
    """
    spec = artifact.spec
    reader = Reader(spec.channels)
    unknown = without_truth(spec)
    degradable = unknown is None
    if ground_truth and unknown:
        raise InputError(
            f"Ground truth is of no use for {spec.name}: {unknown}.",
            fix="Give inputs of the model with --images; the file is then judged by its parity alone.",
        )
    notes = []
    trained = artifact.provenance.get("random_weights") is None
    if not (degradable and trained):
        notes.append(f"judged by parity alone: {unknown if trained else 'the weights are random'}")
    elif images and not ground_truth:
        notes.append("the loss is measured on the packaged pictures: --images have no ground truth, --ground-truth has")
    gallery = _Gallery(artifact, reader, trained)
    samples = [file for _, file in sample_images()]
    crops = [
        Picture(f"{image.name} {'x'.join(map(str, image.pixels.shape[1:]))}", image.pixels, None)
        for image in verification_images(artifact)
    ]
    if not images and not ground_truth:
        notes.append("no images given: ranges and judgement come from the same packaged pictures")
        pictures = list(gallery.pictures(samples, len(samples), degradable).values())
        return Material(samples, degradable, pictures + crops, reader, notes)
    files = list_files(images or ground_truth, seed)
    as_truth = bool(ground_truth)
    if images and ground_truth:
        judged = gallery.pictures(list_files(ground_truth, seed), held_out, as_truth=True)
    else:
        judged = gallery.pictures(files, min(held_out, max(1, len(files) // 5)), as_truth)
        rest = [file for file in files if file not in judged]
        if next(Reader(spec.channels).read(rest), None) is None:
            notes.append("too few images to hold some out: ranges and judgement come from the same ones")
            rest = files
        files = rest
    if not judged:
        raise _nothing_readable(reader)
    if degradable and trained:
        judged |= gallery.pictures(samples, len(samples), as_truth=True)
    return Material(files, as_truth and not images, [*judged.values(), *crops], reader, notes)


@dataclass(frozen=True)
class _Gallery:
    """Makes pictures to judge on."""

    artifact: OnnxArtifact
    reader: Reader
    trained: bool

    def pictures(self, files: Sequence[Path], count: int, as_truth: bool) -> dict[Path, Picture]:
        """The middle of the first readable files, as ground truth or as inputs of the model."""
        found: dict[Path, Picture] = {}
        for file, pixels in self.reader.read(files):
            picture = self._restorable(file.stem, pixels) if as_truth else self._given(file.stem, pixels)
            if picture is not None:
                found[file] = picture
            if len(found) == count:
                break
        return found

    def _size(self, scale: int) -> tuple[int, int]:
        """Rows and columns of a picture at a scale."""
        rows, columns = (self.artifact.fixed_sizes.get(name, PICTURE_SIDE) for name in ("height", "width"))
        return rows * scale, columns * scale

    def _restorable(self, name: str, pixels: Images) -> Picture | None:
        """A picture with its degraded form; None where its metric would look at no pixel."""
        spec = self.artifact.spec
        truth = _whole(middle(pixels, self._size(spec.scale)), spec.scale)
        given = degrade(truth, spec)
        if given is None or min(truth.shape[1:]) <= 2 * spec.scale:
            return None
        return Picture(name, given, truth if self.trained else None)

    def _given(self, name: str, pixels: Images) -> Picture:
        """An input of the model; a denoiser's gets its noise."""
        given = middle(pixels, self._size(1))
        noisy = degrade(given, self.artifact.spec) if self.artifact.spec.task == "denoising" else None
        return Picture(name, given if noisy is None else noisy, None)


def _whole(pixels: Images, scale: int) -> Images:
    """Cut to multiples of the scale; a side below it is repeated up to it."""
    height, width = pixels.shape[1:]
    below, beside = max(0, scale - height), max(0, scale - width)
    if below or beside:
        pixels = np.pad(pixels, ((0, 0), (0, below), (0, beside)), mode="edge")
        height, width = pixels.shape[1:]
    return np.ascontiguousarray(pixels[:, : height // scale * scale, : width // scale * scale])


def _nothing_readable(reader: Reader) -> InputError:
    reasons = list(reader.skipped.values())
    why = f"{len(reasons)} files could not be read; the first: {reasons[0]}" if reasons else "All are too small."
    return InputError("There is no image to calibrate on.", why=why, fix="Give other images.")
