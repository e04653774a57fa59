"""A picture in memory and what has to travel with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "EXIF_PREFIX",
    "MAX_PIXELS",
    "Density",
    "Image",
    "Refused",
    "TooLarge",
    "check_single",
    "check_size",
    "from_samples",
    "on_white",
    "quantised",
    "sound_density",
    "to_channels",
    "to_samples",
]

MAX_PIXELS = 178_956_970
"""Largest H * W that is read: the point where Pillow, too, assumes a decompression bomb."""

EXIF_PREFIX = b"Exif\0\0"

BAND = 64
"""Rows that are turned into samples at a time."""


class Refused(Exception):
    """A sound file that is not taken; the message completes "Cannot use FILE: ...".

    Args:
        reason: Why it is not taken.
        fix: What the user can do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


class TooLarge(Refused):
    """A picture of more pixels than may be read."""


@dataclass(frozen=True)
class Density:
    """Pixels a unit of length on paper, or under a microscope.

    Attributes:
        x: Across.
        y: Down.
        unit: As TIFF's ResolutionUnit: 1 is no unit (the shape of a pixel, or a unit written elsewhere), 2 inch,
            3 centimetre.
    """

    x: float
    y: float
    unit: int = 2

    def per(self, unit: int) -> tuple[float, float]:
        """(x, y) by inch (2) or centimetre (3); without a unit, as they are."""
        factor = 1.0 if 1 in (unit, self.unit) else {2: 2.54, 3: 1.0}[unit] / {2: 2.54, 3: 1.0}[self.unit]
        return self.x * factor, self.y * factor


def sound_density(x: float, y: float, unit: int) -> Density | None:
    """A density that says something: positive numbers, and not one pixel in no unit."""
    sound = 0 < x < 1e9 and 0 < y < 1e9 and unit in (1, 2, 3)
    return Density(float(x), float(y), unit) if sound and (unit > 1 or x != 1 or y != 1) else None


@dataclass(frozen=True, eq=False)
class Image:
    r"""One still picture and what has to travel with it.

    Attributes:
        pixels: [C, H, W], C = 1 (grey) or 3 (RGB), in the file's own encoding (gamma is neither removed nor added) and
            orientation (the EXIF tag is not applied). float32 in 0..1; or, of what is only to be written, uint8 or
            uint16 samples, which take a quarter or half of the memory (`quantised`).
        alpha: Opacity, float32 [1, H, W] in 0..1, not multiplied into `pixels`; None if opaque.
        bit_depth: 8 or 16 bits a sample: what the file had, and what `write_image` aims for.
        exif: EXIF block, ``b"Exif\0\0"`` and then a TIFF structure; None if there is none.
        icc_profile: ICC colour profile of `pixels`; None if there is none.
        density: Pixels an inch or centimetre; None if the file does not say. It replaces what `exif` says of it.
        xmp: XMP packet; None if there is none.
        texts: (keyword, text) of PNG's text chunks; a JPEG's comment has the keyword "Comment".
        colour: (chunk type, content) of PNG's gAMA, cHRM, sRGB, cICP, mDCV and cLLI (W3C PNG, section 11.3.2): what
            colours `pixels` are where there is no ICC profile.

    Raises:
        ValueError: A shape, dtype or bit depth is not one of the above.
    """

    pixels: npt.NDArray[Any]
    alpha: npt.NDArray[np.float32] | None = None
    bit_depth: int = 8
    exif: bytes | None = None
    icc_profile: bytes | None = None
    density: Density | None = None
    xmp: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    colour: tuple[tuple[bytes, bytes], ...] = ()

    def __post_init__(self) -> None:
        """Check shapes, dtypes and bit depth."""
        shape = self.pixels.shape
        if self.pixels.dtype not in (np.float32, np.uint8, np.uint16) or len(shape) != 3 or shape[0] not in (1, 3):
            found = f"{self.pixels.dtype} {list(shape)}"
            raise ValueError(f"pixels must be float32, uint8 or uint16 [1 or 3, H, W], not {found}")
        if 0 in shape:
            raise ValueError(f"pixels must not be empty, shape {list(shape)}")
        alpha = self.alpha
        if alpha is not None and (alpha.dtype != np.float32 or alpha.shape != (1, *shape[1:])):
            found = f"{alpha.dtype} {list(alpha.shape)}"
            raise ValueError(f"alpha must be float32 {[1, *shape[1:]]}, not {found}")
        if self.bit_depth not in (8, 16):
            raise ValueError(f"bit_depth must be 8 or 16, not {self.bit_depth}")


def from_samples(samples: npt.NDArray[Any], exif: bytes | None, icc_profile: bytes | None, top: int = 0) -> Image:
    """A picture from uint8 or uint16 [H, W] or [H, W, 1..4], alpha last if the count is even.

    Args:
        samples: The samples.
        exif: EXIF block, with or without its prefix.
        icc_profile: Colour profile.
        top: The sample that is 1; 0 is the largest of the dtype.
    """
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if exif:
        exif = EXIF_PREFIX + exif.removeprefix(EXIF_PREFIX)
    bits = 8 * samples.dtype.itemsize
    planes = samples.transpose(2, 0, 1).astype(np.float32, order="C")
    planes /= np.float32(top or 2**bits - 1)
    alpha = None
    if len(planes) % 2 == 0:
        planes, alpha = planes[:-1], planes[-1:]
    return Image(planes, alpha, bits, exif or None, icc_profile or None)


def quantised(values: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Values of 0..1, which are clamped to that, as uint8 or uint16, rounded to nearest; samples as they are."""
    kind = np.uint8 if bits == 8 else np.uint16
    if values.dtype == kind:
        return values
    samples: npt.NDArray[Any] = np.rint(np.clip(_floats(values), 0, 1) * np.float32(2**bits - 1)).astype(kind)
    return samples


def to_channels(pixels: npt.NDArray[np.float32], channels: int) -> npt.NDArray[np.float32]:
    """Converts ``[1 or 3, H, W]`` to the channels of a model: luma for grey, copies for the rest."""
    if len(pixels) == channels:
        return pixels
    if channels == 1:
        weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, full range
        grey: npt.NDArray[np.float32] = np.einsum("chw,c->hw", pixels, weights)[None]
        return grey
    tiled: npt.NDArray[np.float32] = np.resize(pixels, (channels, *pixels.shape[1:])).astype(np.float32)
    return tiled


def to_samples(image: Image, bits: int) -> npt.NDArray[Any]:
    """The picture as uint8 or uint16 [H, W, C], alpha last."""
    if image.alpha is None and image.pixels.dtype == (np.uint8 if bits == 8 else np.uint16):
        return np.ascontiguousarray(image.pixels.transpose(1, 2, 0))
    planes = [image.pixels] if image.alpha is None else [image.pixels, image.alpha]
    _, height, width = image.pixels.shape
    samples = np.empty((height, width, sum(map(len, planes))), np.uint8 if bits == 8 else np.uint16)
    for top in range(0, height, BAND):  # a large picture has no room for a second one in float32
        band = np.concatenate([quantised(plane[:, top : top + BAND], bits) for plane in planes])
        samples[top : top + BAND] = band.transpose(1, 2, 0)
    return samples


def on_white(image: Image) -> Image:
    """The picture over a white page, opaque (Porter and Duff 1984, "over")."""
    assert image.alpha is not None
    pixels = np.clip(_floats(image.pixels), 0, 1)
    pixels = 1 + (pixels - 1) * np.clip(image.alpha, 0, 1)
    return replace(image, pixels=pixels, alpha=None)


def _floats(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Samples as float32 in 0..1."""
    if values.dtype == np.float32:
        return values
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Refuses a picture of more than so many pixels."""
    if width * height > most:
        raise TooLarge(f"{width}x{height} is over the limit of {most} pixels", "Cut it into pieces.")


def check_single(pictures: int) -> None:
    """Refuses a file of several pictures."""
    if pictures > 1:
        raise Refused(
            f"it holds {pictures} pictures or frames, and only still images are read",
            "Split it into single images.",
        )
