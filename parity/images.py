"""The images a ladder looks at: real pictures, cut to sizes that show mistakes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np

from ..engines.runner import Images
from ..errors import ImageError
from ..export.artifact import OnnxArtifact
from ..images.files import list_images, read_image, sample_images
from ..images.picture import to_channels
from ..images.resizing import pad_to_size
from ..models.spec import ModelSpec

__all__ = [
    "LARGEST",
    "ParityImage",
    "default_sizes",
    "images_of_size",
    "load_images",
    "middle",
    "textured",
    "verification_images",
]


LOG = logging.getLogger(__name__)

LARGEST = (256, 256)
"""Rows and columns up to which a picture is compared whole: what differs shows in less than a photograph."""


@dataclass(frozen=True)
class ParityImage:
    """A named picture, float32 ``[C, H, W]`` in 0..1, in the model's channels."""

    name: str
    pixels: Images


def default_sizes(spec: ModelSpec) -> tuple[tuple[int, int], ...]:
    """Sizes (rows, columns) no export traces: one off the window's grid, one on it, and a single pixel."""
    side = max(64, 2 * spec.pad_multiple)
    side += -side % spec.pad_multiple
    return ((45, 70), (side, side), (1, 1))


def textured(image: Images, padded: Images) -> bool:
    """Whether padding repeated no edge (`pad_to_multiple`): where it does, all keys tie, and any choice is right.

    Args:
        image: ``[..., H, W]``.
        padded: The same, padded.
    """
    return all(more < 2 * side for side, more in zip(image.shape[-2:], padded.shape[-2:], strict=True))


def middle(pixels: Images, size: tuple[int, int]) -> Images:
    """The middle of a picture, of at most `size` rows and columns."""
    height, width = pixels.shape[1:]
    top, left = max(0, height - size[0]) // 2, max(0, width - size[1]) // 2
    return np.ascontiguousarray(pixels[:, top : top + size[0], left : left + size[1]])


def load_images(
    spec: ModelSpec,
    paths: Sequence[str | Path] = (),
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[ParityImage]:
    """Reads pictures and cuts their middle to the sizes, in turn; every size and every picture occurs at least once.

    Pictures of the user's are looked at whole, too, unless sizes are asked for: up to `LARGEST`, which is logged. Of
    several, those that cannot be read are left out, and that is logged.

    Args:
        spec: The model's spec.
        paths: Image files and folders; the packaged samples where empty.
        sizes: (rows, columns) of the crops, `default_sizes` where None. A smaller picture is used whole along that
            side.

    Raises:
        ImageError: No path holds a readable image.
    """
    own, crops = bool(paths), list(sizes if sizes is not None else default_sizes(spec))
    files = list_images(paths) if own else [path for _, path in sample_images()]
    show_whole = own and sizes is None
    whole: list[ParityImage] = []
    middles: list[ParityImage] = []
    readable: list[Path] = []

    def take_middle(path: Path, pixels: Images) -> None:
        name = path.name if own else path.stem
        middles.append(ParityImage(name, middle(pixels, crops[len(middles) % len(crops)])))

    for path in files:
        try:
            pixels = to_channels(read_image(path).pixels, spec.channels)
        except ImageError as error:
            if len(files) == 1:
                raise
            LOG.info(f"Skipped: {error.what}")
            continue
        readable.append(path)
        if show_whole:
            whole.append(_whole(path.name, pixels))
        if not show_whole or len(middles) < len(crops):
            take_middle(path, pixels)
    if not readable:
        raise ImageError(f"None of {len(files)} files can be read as an image.", fix="Name others.")
    for path in cycle(readable):
        if len(middles) >= len(crops):
            break
        take_middle(path, to_channels(read_image(path).pixels, spec.channels))
    seen = {(image.name, image.pixels.shape) for image in whole}
    return whole + [image for image in middles if (image.name, image.pixels.shape) not in seen]


def _whole(name: str, pixels: Images) -> ParityImage:
    """A picture as it is, or its middle where it is larger than need be."""
    rows, columns = pixels.shape[1:]
    if rows > LARGEST[0] or columns > LARGEST[1]:
        LOG.info(
            f"Of {name} the middle is compared: {LARGEST[0]}x{LARGEST[1]} of {rows}x{columns}; --size takes others"
        )
    return ParityImage(name, middle(pixels, LARGEST))


def verification_images(
    artifact: OnnxArtifact,
    paths: Sequence[str | Path] = (),
    sizes: Sequence[tuple[int, int]] = (),
) -> list[ParityImage]:
    """The pictures to verify a file on: `load_images`, at the file's own size where that is fixed.

    Args:
        artifact: The exported file.
        paths: Image files and folders; the packaged samples where empty.
        sizes: (rows, columns) of the crops; where empty the fixed size, to which smaller pictures are padded, or
            `default_sizes`.

    Raises:
        ImageError: A path holds no readable image.
    """
    fixed = artifact.fixed_sizes
    if sizes or "height" not in fixed or "width" not in fixed:
        return load_images(artifact.spec, paths, sizes or None)
    return images_of_size(artifact.spec, (fixed["height"], fixed["width"]), paths)


def images_of_size(spec: ModelSpec, size: tuple[int, int], paths: Sequence[str | Path] = ()) -> list[ParityImage]:
    """`load_images` at one size; smaller pictures are padded to it (`pad_to_size`).

    Args:
        spec: The model's spec.
        size: (rows, columns).
        paths: Image files and folders; the packaged samples where empty.

    Raises:
        ImageError: No path holds a readable image.
    """
    images = load_images(spec, paths, [size])
    return [replace(image, pixels=pad_to_size(image.pixels[None], *size)[0]) for image in images]
