"""Calibration images: files in a fixed random order, and in each of them crops chosen by what is in the picture."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..engines.runner import Images
from ..errors import ImageError, InputError
from ..images.files import list_images, read_image
from ..images.picture import to_channels

__all__ = ["Reader", "choose_crops", "list_files"]

LOG = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]

GOLDEN = 0.6180339887498949
"""Fractions of its multiples are spread evenly over 0..1, however many are taken."""


def list_files(paths: Sequence[str | Path], seed: int) -> list[Path]:
    """The image files that files, folders and lists name, in a random order that depends on the seed alone.

    Args:
        paths: Image files, folders, and text files (``.txt``) with one image path a line, relative to the text file;
            empty lines and lines that start with ``#`` are skipped.
        seed: Of the order.

    Raises:
        ImageError: A path is missing, or there is no image.
        InputError: A list cannot be read.
    """
    named: list[str | Path] = []
    for path in map(Path, paths):
        named += _entries(path) if path.suffix.lower() == ".txt" and path.is_file() else [path]
    files = sorted(list_images(named), key=lambda file: (file.name, str(file)))
    random.Random(seed).shuffle(files)
    return files


def _entries(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows begins such files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read the list {path}: {error}.", fix="It must be UTF-8 text, a path a line."
        ) from error
    return [path.parent / line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


@dataclass
class Reader:
    """Reads pictures in a model's channels and skips those that cannot be read.

    Attributes:
        channels: Channels of the model.
        skipped: Reasons, by file, of what could not be read.
    """

    channels: int
    skipped: dict[Path, str] = field(default_factory=dict)

    def read(self, files: Sequence[Path]) -> Iterator[tuple[Path, Images]]:
        """The readable files and their pixels ``[C, H, W]``, one at a time."""
        for file in files:
            try:
                pixels = to_channels(read_image(file).pixels, self.channels)
            except ImageError as error:
                if file not in self.skipped:
                    LOG.info(f"Skipped: {error.what}")
                self.skipped[file] = error.what
                continue
            yield file, pixels


def choose_crops(pixels: Images, size: tuple[int, int], count: int, first: int) -> list[Images]:
    """Cuts crops whose detail is spread from flat to busy.

    Positions on a grid of half a crop are sorted by the variance of their grey values, and taken at evenly spread ranks
    of that order; `first` continues the spread from picture to picture.

    Args:
        pixels: ``[C, H, W]``.
        size: Rows and columns of a crop; a smaller picture is used whole along that side.
        count: Crops wanted; at most one a position is given.
        first: Number of crops taken of earlier pictures.

    Returns:
        At least one crop.
    """
    rows, columns = (min(wanted, there) for wanted, there in zip(size, pixels.shape[1:], strict=True))
    tops, lefts = (_grid(there, wanted) for there, wanted in zip(pixels.shape[1:], (rows, columns), strict=True))
    variance = _local_variance(pixels.mean(0, dtype=np.float64), tops, lefts, rows, columns)
    order = np.argsort(variance, axis=None, kind="stable")
    ranks = [int((first + index + 0.5) * GOLDEN % 1 * len(order)) for index in range(count)]
    chosen = [divmod(int(order[rank]), len(lefts)) for rank in dict.fromkeys(ranks)]
    return [np.ascontiguousarray(pixels[:, tops[i] : tops[i] + rows, lefts[j] : lefts[j] + columns]) for i, j in chosen]


def _grid(there: int, wanted: int) -> list[int]:
    """Starts of crops along a side: half a crop apart, the last one at the end."""
    return sorted({*range(0, there - wanted, max(1, wanted // 2)), there - wanted})


def _local_variance(grey: Float64, tops: Sequence[int], lefts: Sequence[int], rows: int, columns: int) -> Float64:
    """Variance of the crop at every position, from sums over rectangles."""
    area = rows * columns

    def means(values: Float64) -> Float64:
        summed = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        top, left = np.array(tops)[:, None], np.array(lefts)[None]
        below, beside = top + rows, left + columns
        sums = summed[below, beside] - summed[top, beside] - summed[below, left] + summed[top, left]
        return np.asarray(sums / area)

    centred = grey - grey.mean()
    return means(centred * centred) - means(centred) ** 2
