"""Image files in and out: grey or RGB, 8 or 16 bit, with alpha, EXIF and ICC profile carried along.

This is the side that faces the file system; `codecs` turns bytes into pictures and back.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EnvironmentProblem, ImageError, ImageTooLarge, OutputError
from ..files import check_output, write_atomic
from .codecs import (
    IMAGE_SUFFIXES,
    LARGEST_SIDE,
    QUALITY_SUFFIXES,
    READ_SUFFIXES,
    decode,
    encode,
    encoding_bytes,
    lost,
    sample_bits,
    size_of,
)
from .picture import MAX_PIXELS, Image, Refused, TooLarge

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGEST_SIDE",
    "MAX_PIXELS",
    "QUALITY_SUFFIXES",
    "READ_SUFFIXES",
    "Image",
    "check_finite",
    "check_side",
    "decoded",
    "encoded",
    "encoding_bytes",
    "file_bytes",
    "list_images",
    "natural_key",
    "read_image",
    "read_size",
    "sample_bits",
    "sample_images",
    "write_image",
]

LOGGER = logging.getLogger(__name__)


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read a PNG, JPEG, TIFF, WebP, BMP, GIF, AVIF or JPEG 2000 file; the content decides, not the suffix.

    Palettes become RGB, tRNS becomes alpha, bilevel becomes 8-bit grey. CMYK becomes RGB as
    (1 - C)(1 - K) and loses its ICC profile, which no longer fits. Alpha that a TIFF says is
    multiplied in is divided out; extra TIFF channels that are not declared as alpha are left out.
    Files with several pictures are refused (animations, documents of several pages) rather than
    losing all but one; only thumbnails in TIFF, and depth and gain maps after a JPEG, are skipped.

    Args:
        path: File to read.

    Returns:
        The picture, in the orientation it is stored in.

    Raises:
        ImageError: The file is missing, a folder, empty, truncated, damaged, no image, of a format
            that is not read, over `MAX_PIXELS`, holds several pictures, or has other samples than
            integers of up to 8, or of 16 bits.
    """
    path = Path(path)
    return decoded(file_bytes(path), str(path))


def decoded(data: bytes, name: str, most: int = MAX_PIXELS) -> Image:
    """`read_image` of the bytes of a file.

    Args:
        data: The whole file.
        name: What errors call it.
        most: Largest number of pixels; more are refused before they are unpacked.

    Raises:
        ImageTooLarge: It has more pixels.
        ImageError: See `read_image`.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes).", fix="Copy or download it again.")
    try:
        return decode(data, most)
    except TooLarge as error:
        raise ImageTooLarge(f"Cannot use {name}: {error}.", fix=error.fix) from None
    except Refused as error:
        raise ImageError(f"Cannot use {name}: {error}.", fix=error.fix) from None
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise ImageError(
            f"Cannot read {name} ({len(data)} bytes) as an image.",
            why=f"It is truncated, damaged or no image; the decoder says: {_one_line(error)}.",
            fix="Copy or download it again, or convert it to PNG.",
        ) from error


def write_image(path: str | os.PathLike[str], image: Image, overwrite: bool = False) -> None:
    """Write a picture in the format its suffix names; either the whole file appears, or nothing.

    Samples are clamped to 0..1 and rounded to nearest. PNG and TIFF keep 16 bits and alpha; WebP
    (written lossless, always as colour) keeps alpha at 8 bits; JPEG (quality 95, no chroma
    subsampling) and BMP are 8 bits, and alpha is composited on white there, as a page shows it.

    EXIF goes whole into PNG, JPEG, WebP and TIFF (there its main, Exif and GPS directories), with the
    picture's own size and density in it; over JPEG's limit of 65533 bytes, a block shrinks to its
    orientation. An ICC profile is written unless it is for another colour space than the pixels.
    What PNG says of colours without a profile stays in PNG, and becomes a profile elsewhere. BMP holds
    none of this: pixels are turned as the orientation says. What a format does not hold is logged
    (docs/files.md has the table).

    Args:
        path: File to write; its suffix must be one of `IMAGE_SUFFIXES`.
        image: The picture.
        overwrite: Replace a file that exists.

    Raises:
        OutputError: See `check_output`; or a pixel is NaN or infinite, the picture does not fit
            the format (WebP ends at 16383 pixels a side), or the disk is full.
    """
    path = Path(path)
    check_output(path, overwrite)
    data, missing = encoded(path, image)
    write_atomic(path, data, overwrite)
    if missing:
        LOGGER.info(f"{path} is written without {'; '.join(missing)}: the format does not hold it.")


def encoded(path: str | os.PathLike[str], image: Image, quality: int | None = None) -> tuple[bytes, list[str]]:
    """What `write_image` writes.

    Args:
        path: File that it is for; its suffix is the format.
        image: The picture.
        quality: 1 to 100, for a format in `QUALITY_SUFFIXES`; None for its own (JPEG 95, WebP lossless).

    Returns:
        The bytes, and what of the picture they do not hold, in words that complete "written without".

    Raises:
        OutputError: See `write_image`.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise OutputError(
            f"Cannot write {path}: the suffix {path.suffix!r} names no image format known here.",
            fix="Use one of " + " ".join(IMAGE_SUFFIXES) + ".",
        )
    _, height, width = image.pixels.shape
    check_side(path, height, width)
    for plane in (image.pixels, image.alpha):
        if plane is not None:
            check_finite(plane, f"Cannot write {path}: ")
    try:
        data = encode(path.suffix.lower(), image, quality)
    except Exception as error:  # encoders raise OSError, ValueError, struct.error, their own, ...
        raise OutputError(
            f"Cannot write {path}: a {width}x{height} picture does not go into this format.",
            why=f"The encoder says: {_one_line(error)}.",
            fix="Write a PNG instead.",
        ) from error
    return data, lost(path.suffix.lower(), image)


def check_finite(values: npt.NDArray[Any], before: str = "") -> None:
    """Refuses pixels that no file holds.

    Args:
        values: Pixels, of one axis or more.
        before: What the error begins with.

    Raises:
        OutputError: Some are NaN or infinite.
    """
    if values.dtype.kind != "f":
        return
    bad = sum(int(part.size - np.isfinite(part).sum()) for part in values)  # of all at once, a byte for each
    if bad:
        raise OutputError(
            f"{before}{bad} of its values are NaN or infinite.",
            why="The model or engine that made them overflowed.",
            fix="Run it in float32, or find the block that overflows with the parity report.",
        )


def read_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(rows, columns) of the picture in a file, without reading its pixels; None where that cannot be told."""
    path = Path(path)
    try:
        if path.is_file():  # a pipe or a device could block for ever
            with path.open("rb") as file:
                return size_of(file)
    except (OSError, ValueError):  # reading it whole will say why
        return None
    return None


def check_side(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Say early that a picture is too large for the format that the suffix of a file names.

    Args:
        path: File that is going to be written.
        height: Rows of the picture.
        width: Columns of the picture.

    Raises:
        OutputError: A side is longer than WebP (16383 pixels) or JPEG (65500) allows.
    """
    path = Path(path)
    largest = LARGEST_SIDE.get(path.suffix.lower())
    if largest is not None and max(height, width) > largest:
        raise OutputError(
            f"Cannot write {path}: a {width}x{height} picture does not go into this format.",
            why=f"A side has at most {largest} pixels in it.",
            fix="Write a PNG instead.",
        )


def list_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> list[Path]:
    """Expand files and folders into a list of image files.

    Args:
        paths: A file or folder, or several. A file is taken whatever its suffix; a folder gives
            its visible files with one of `IMAGE_SUFFIXES` or `READ_SUFFIXES`, not those of folders
            in it, in natural order (``2.png`` before ``10.png``); which others it leaves out is logged.

    Returns:
        The files, in the order given, each once.

    Raises:
        ImageError: A path is missing, a folder has no image in it, or nothing was given.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ImageError(f"There is no file or folder {path}.", fix="Check the path.")
        files = _images_in(path) if path.is_dir() else [path]
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise ImageError("No image was given.", fix="Name image files or a folder of them.")
    return list(found.values())


def sample_images() -> list[tuple[str, Path]]:
    """The small pictures that come with the package, as (name, file), by name.

    Raises:
        EnvironmentProblem: They are not there: the package is not installed completely.
    """
    folder = Path(__file__).parent / "samples"
    samples = [(file.stem, file) for file in sorted(folder.glob("*.png"))]
    if not samples:
        raise EnvironmentProblem(
            f"The packaged sample images are missing from {folder}.",
            fix="Install the package again.",
        )
    return samples


def file_bytes(path: Path) -> bytes:
    """The content of a regular, non-empty file.

    Raises:
        ImageError: It is missing, empty, no regular file, or cannot be read.
    """
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder, not an image.", fix="Name a file in it.")
        if not path.exists():
            raise ImageError(f"There is no file {path}.", fix="Check the path.")
        if not path.is_file():  # a pipe or a device could block for ever
            raise ImageError(f"{path} is not a regular file.", fix="Save the image to a file.")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"Cannot open {path}: {reason}.", fix="Check its permissions.") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes).", fix="Copy or download it again.")
    return data


def _images_in(folder: Path) -> list[Path]:
    """The visible image files of one folder, naturally sorted; `ImageError` if there are none."""
    suffixes = IMAGE_SUFFIXES + READ_SUFFIXES
    try:
        visible = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    except OSError as error:
        raise ImageError(f"Cannot list the folder {folder}: {error.strerror}.", fix="Check its permissions.") from error
    files = [file for file in visible if file.suffix.lower() in suffixes]
    if not files:
        raise ImageError(
            f"The folder {folder} has no image in it.",
            why="Folders inside it are not searched, and hidden files are skipped.",
            fix="Files with these suffixes are taken: " + " ".join(suffixes) + ".",
        )
    left_out = Counter(file.suffix.lower() or "no suffix" for file in visible if file.suffix.lower() not in suffixes)
    if left_out:
        counted = ", ".join(f"{count} with {suffix}" for suffix, count in sorted(left_out.items()))
        LOGGER.info(f"Of the folder {folder}, {counted} are left out. Files named one by one are taken as they are.")
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts digits by value and letters without case; the name itself breaks ties."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    key = [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts]
    return key, name


def _one_line(error: Exception) -> str:
    """An exception of another library, fit for the inside of a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    return re.sub(r" <_io\.BytesIO object at \w+>", "", text) or type(error).__name__
