"""Pictures of other channels than grey and RGB (satellite bands, raw mosaics): TIFFs of that many samples a pixel."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, ImageTooLarge
from ..files import write_atomic
from .picture import MAX_PIXELS, Refused, TooLarge, check_size, quantised

__all__ = [
    "TIFF_SUFFIXES",
    "SpectralImage",
    "bands_of",
    "decoded_spectral",
    "encoded_spectral",
    "read_spectral",
    "rescaled_spectral",
    "write_spectral",
]

TIFF_SUFFIXES = (".tif", ".tiff")

KINDS = (np.uint8, np.uint16, np.float32)
"""Types of samples that are read and written; integers are 0..1 of their largest."""

PIXEL_SCALE, TIE_POINTS, MATRIX = 33550, 33922, 34264
PLACE = (PIXEL_SCALE, TIE_POINTS, MATRIX, 34735, 34736, 34737, 42112, 42113)
"""Tags that say where on earth a picture lies (OGC GeoTIFF 1.1, annex A), and GDAL's metadata and value for no data."""

RESOLUTION = ("XResolution", "YResolution", "ResolutionUnit")


@dataclass(frozen=True, eq=False)
class SpectralImage:
    """A picture of any number of channels.

    Attributes:
        pixels: float32 [C, H, W], in 0..1 where the file's samples are integers.
        kind: Type of the file's samples, one of `KINDS`.
        planar: Whether the file holds channel by channel.
        colour: Whether the first three channels are said to be red, green and blue.
        place: (code, type, count, value) of the tags of `PLACE`.
        resolution: Pixels a unit across and down, and the unit as in TIFF; None where the file does not say.
    """

    pixels: npt.NDArray[np.float32]
    kind: npt.DTypeLike
    planar: bool = False
    colour: bool = False
    place: tuple[tuple[int, int, int, Any], ...] = ()
    resolution: tuple[float, float, int] | None = None


def bands_of(path: str | os.PathLike[str]) -> int | None:
    """Samples a pixel of a TIFF file, alpha among them; None where it is no TIFF that can be read."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return int(file.pages.first.samplesperpixel)
    except Exception:  # whatever damage makes the library raise; reading it whole will say
        return None


def read_spectral(path: str | os.PathLike[str], channels: int) -> SpectralImage:
    """Reads a TIFF file of so many samples a pixel, all of them bands.

    Args:
        path: The file.
        channels: Bands that it must have.

    Raises:
        ImageError: It is missing or damaged, has several pictures, another number of samples, samples of another type
            than uint8, uint16 and float32, or floats that are NaN or infinite.
    """
    return _decoded(Path(path), str(path), channels, MAX_PIXELS)


def decoded_spectral(data: bytes, name: str, channels: int, most: int = MAX_PIXELS) -> SpectralImage:
    """`read_spectral` of the bytes of a file.

    Args:
        data: The whole file.
        name: What errors call it.
        channels: Bands that it must have.
        most: Largest number of pixels; more are refused before they are unpacked.

    Raises:
        ImageTooLarge: It has more pixels.
        ImageError: See `read_spectral`.
    """
    return _decoded(BytesIO(data), name, channels, most)


def _decoded(source: Path | BytesIO, path: str, channels: int, most: int) -> SpectralImage:
    import tifffile

    try:
        with tifffile.TiffFile(source) as file:
            page = file.pages.first
            check_size(page.imagewidth, page.imagelength, most)
            if page.samplesperpixel > channels:
                bands = f"Save it as {channels} bands of uint8, uint16 or finite float32."
                raise Refused(f"it has {page.samplesperpixel} channels, the model takes {channels}", bands)
            check_size(1, math.prod(page.chunks) // channels, max(most, 1 << 22))  # of a strip or tile
            samples = page.asarray()
            colour = bool(page.photometric == tifffile.PHOTOMETRIC.RGB)
            planar = bool(page.planarconfig == tifffile.PLANARCONFIG.SEPARATE)
            samples = samples if planar else np.moveaxis(np.atleast_3d(samples), -1, 0)
            tags = [page.tags[code] for code in PLACE if code in page.tags]
            place = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in tags)
            found = [page.tags.valueof(name) for name in RESOLUTION]
            pictures = len(file.pages)
    except TooLarge as error:
        raise ImageTooLarge(f"Cannot use {path}: {error}.", fix=error.fix) from None
    except Refused as error:
        raise ImageError(f"Cannot use {path}: {error}.", fix=error.fix) from None
    except Exception as error:  # the library raises its own errors, OSError, ValueError, struct.error, ...
        reason = " ".join(str(error).split()).rstrip(".")
        raise ImageError(
            f"Cannot read {path} as a TIFF of {channels} channels.",
            why=f"The decoder says: {reason}.",
            fix="Copy it again, or save it as a TIFF of that many samples a pixel.",
        ) from error
    problem = ""
    if pictures > 1:
        problem = f"it holds {pictures} pictures"
    elif len(samples) != channels:
        problem = f"it has {len(samples)} channels, the model takes {channels}"
    elif samples.dtype not in KINDS:
        problem = f"its samples are {samples.dtype}"
    elif samples.dtype == np.float32 and not np.isfinite(samples).all():
        problem = "some of its values are NaN or infinite"
    if problem:
        raise ImageError(
            f"Cannot use {path}: {problem}.", fix=f"Save it as {channels} bands of uint8, uint16 or finite float32."
        )
    kind = samples.dtype
    pixels = np.ascontiguousarray(samples, np.float32)
    if kind != np.float32:
        pixels /= np.float32(np.iinfo(kind).max)
    x, y, unit = found
    sound = all(isinstance(value, tuple) and value[0] and value[1] for value in (x, y))
    resolution = (x[0] / x[1], y[0] / y[1], int(unit or 1)) if sound else None
    return SpectralImage(pixels, kind, planar, colour, place, resolution)


def rescaled_spectral(image: SpectralImage, pixels: npt.NDArray[np.float32]) -> SpectralImage:
    """The picture with new pixels [C, H, W] that show the same place: a pixel covers less of it."""
    scale = pixels.shape[1] / image.pixels.shape[1]
    place = []
    for code, kind, count, value in image.place:
        if code == PIXEL_SCALE:  # ground units a pixel: x, y, z
            value = (value[0] / scale, value[1] / scale, *value[2:])
        elif code == TIE_POINTS:  # of every six numbers the first two are a column and a row
            value = tuple(v * scale if i % 6 < 2 else v for i, v in enumerate(value))
        elif code == MATRIX:  # 4 x 4, row by row; the first two columns multiply column and row
            value = tuple(v / scale if i % 4 < 2 else v for i, v in enumerate(value))
        place.append((code, kind, count, value))
    resolution = image.resolution and (image.resolution[0] * scale, image.resolution[1] * scale, image.resolution[2])
    return replace(image, pixels=pixels, place=tuple(place), resolution=resolution)


def write_spectral(path: str | os.PathLike[str], image: SpectralImage, overwrite: bool = False) -> None:
    """Writes a TIFF of the picture's sample type: integers clamped and rounded to nearest, floats as they are.

    Raises:
        OutputError: See `write_atomic`.
    """
    write_atomic(path, encoded_spectral(image), overwrite)


def encoded_spectral(image: SpectralImage) -> bytes:
    """What `write_spectral` writes."""
    import tifffile

    samples = image.pixels if image.kind == np.float32 else quantised(image.pixels, 8 * np.dtype(image.kind).itemsize)
    options: dict[str, Any] = {"planarconfig": "separate" if image.planar else "contig"}
    if not image.planar:
        samples = np.moveaxis(samples, 0, -1)
    if image.resolution:
        options |= {"resolution": image.resolution[:2], "resolutionunit": image.resolution[2]}
    stream = BytesIO()
    tifffile.imwrite(
        stream,
        samples,
        photometric="rgb" if image.colour else "minisblack",
        extrasamples=["unspecified"] * (len(image.pixels) - (3 if image.colour else 1)),
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,
        extratags=[(*tag, True) for tag in image.place],
        **options,
    )
    return stream.getvalue()
