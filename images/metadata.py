"""Metadata that speaks of a picture's size or way up: what becomes of it when the picture changes."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..json_form import parse_json
from .exif import DESCRIPTION, DIRECTORIES, ORIENTATION, only, parse_exif
from .picture import Density, Image

__all__ = ["TIFF_TAGS", "description", "orientation", "rescaled", "sized_xmp", "structural", "upright"]

LOGGER = logging.getLogger(__name__)

# ImageDescription, Make, Model, Orientation, Software, DateTime, Artist, Copyright: the tags of a
# TIFF directory that describe the picture and not the layout of the file.
TIFF_TAGS = (DESCRIPTION, 271, 272, ORIENTATION, 305, 306, 315, 33432)

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")


def rescaled(image: Image, pixels: npt.NDArray[Any], alpha: npt.NDArray[np.float32] | None) -> Image:
    """The picture with new pixels of another size: the same size on paper and under the microscope.

    The density grows with the picture. Descriptions that microscopes measure with follow: OME-XML's SizeX, SizeY,
    PhysicalSizeX and PhysicalSizeY, tifffile's shape; ImageJ measures with the density. Those that cannot follow
    (OME-XML of several images) are left out, and that is logged.

    Args:
        image: The picture before.
        pixels: [C, H, W], see `Image`.
        alpha: float32 [1, H, W], or None.
    """
    (height, width), (new_height, new_width) = image.pixels.shape[1:], pixels.shape[1:]
    x, y = new_width / width, new_height / height
    density, exif = image.density, image.exif
    if density:
        density = Density(density.x * x, density.y * y, density.unit)
    text = description(exif)
    kind = structural(text)
    if kind and (x, y) != (1, 1):
        parsed = parse_exif(exif)
        kept = _rescaled_description(text, kind, (height, width), (new_height, new_width))
        if kept is None:
            LOGGER.info(f"The {kind} description of the picture speaks of another size; it is left out.")
            del parsed[DESCRIPTION]
        else:
            parsed[DESCRIPTION] = kept
        exif = only(parsed, TIFF_TAGS, DIRECTORIES) or None
    return replace(image, pixels=pixels, alpha=alpha, density=density, exif=exif)


def description(exif: bytes | None) -> str:
    """ImageDescription as Latin-1, which keeps every byte."""
    text = parse_exif(exif).get(DESCRIPTION) if exif else None
    return text if isinstance(text, str) else ""


def structural(text: str) -> str | None:
    """Whose program's notes on the structure of a file a description is; None where people wrote it."""
    if text.startswith("ImageJ="):
        return "ImageJ"
    if "<OME" in text[:2000]:
        return "OME-XML"
    return "tifffile" if text.startswith("{") and '"shape":' in text else None  # older releases put it last


def _rescaled_description(text: str, kind: str, old: tuple[int, int], new: tuple[int, int]) -> str | None:
    if kind == "ImageJ":
        return text  # its unit of length stands here, the number of pixels a unit in the density
    if kind == "tifffile":
        try:
            notes = parse_json(text.rstrip("\0"))
            place = [tuple(notes["shape"][i : i + 2]) for i in range(len(notes["shape"]))].index(old)
        except (ValueError, KeyError, TypeError):
            return None
        notes["shape"][place : place + 2] = new
        return json.dumps(notes)
    if len(re.findall(r"<(?:\w+:)?Pixels\b", text)) != 1 or re.search(r'Size[ZT]="(?!1")', text):
        return None
    for axis, size, before in (("X", new[1], old[1]), ("Y", new[0], old[0])):
        text, found = re.subn(rf'\bSize{axis}="{before}"', f'Size{axis}="{size}"', text)
        if not found:
            return None
        physical = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', text)
        if physical:
            scaled = f'PhysicalSize{axis}="{float(physical[1]) * before / size:.12g}"'
            text = text.replace(physical[0], scaled)
    return text.replace('BigEndian="true"', 'BigEndian="false"')


def sized_xmp(image: Image) -> bytes | None:
    """The XMP packet with the picture's width, height and density, where it names them."""
    if not image.xmp:
        return image.xmp
    _, height, width = image.pixels.shape
    numbers = [
        ("tiff:ImageWidth|exif:PixelXDimension", str(width)),
        ("tiff:ImageLength|exif:PixelYDimension", str(height)),
    ]
    if image.density:
        x, y = (round(value * 1000) for value in (image.density.x, image.density.y))
        numbers += [("tiff:XResolution", f"{x}/1000"), ("tiff:YResolution", f"{y}/1000")]
        numbers += [("tiff:ResolutionUnit", str(image.density.unit))]
    packet = image.xmp
    for names, value in numbers:
        pattern = rf"((?:{names})\s*(?:=\s*[\"']|>)\s*)[0-9/]+"
        packet = re.sub(pattern.encode(), rb"\g<1>" + value.encode(), packet)
    return packet


def orientation(image: Image) -> int:
    """How the picture is to be turned, 1 to 8 as in EXIF, from its EXIF block or else its XMP packet; 1 is upright."""
    value = parse_exif(image.exif).get(ORIENTATION) if image.exif else None
    if value is None and image.xmp and (found := _XMP_ORIENTATION.search(image.xmp)):
        value = int(found[1])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(image: Image) -> Image:
    """The picture turned as its orientation says (Exif 2.32, section 4.6.4), for formats that hold no orientation."""
    way = orientation(image)
    if way == 1:
        return image

    def turned(planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if way >= 5:
            planes = planes.swapaxes(1, 2)
        rows = -1 if way in (3, 4, 7, 8) else 1
        columns = -1 if way in (2, 3, 6, 7) else 1
        return np.ascontiguousarray(planes[:, ::rows, ::columns])

    density = image.density
    if density and way >= 5:
        density = Density(density.y, density.x, density.unit)
    alpha = None if image.alpha is None else turned(image.alpha)
    return replace(image, pixels=turned(image.pixels), alpha=alpha, density=density)
