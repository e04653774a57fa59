"""EXIF blocks: read with Pillow, changed in place, so that maker notes and thumbnails stay where they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING

from .picture import EXIF_PREFIX, Density, sound_density
from .quiet import quietly

if TYPE_CHECKING:
    from PIL.Image import Exif

__all__ = [
    "DESCRIPTION",
    "DIRECTORIES",
    "ORIENTATION",
    "density_of",
    "holds_resolution",
    "only",
    "parse_exif",
    "updated",
]

DESCRIPTION = 270
ORIENTATION = 274
DIRECTORIES = (0x8769, 0x8825)
"""Tags of the main directory that point to the Exif and the GPS directory."""

_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_PIXEL_X, _PIXEL_Y = 40962, 40963
_SHORT, _LONG, _RATIONAL = 3, 4, 5


def parse_exif(exif: bytes | None) -> Exif:
    """The tags of an EXIF block; none if it is absent or damaged."""
    from PIL import Image as pillow

    parsed = pillow.Exif()
    try:
        with quietly():  # about damaged blocks
            parsed.load(exif or b"")
            list(parsed.items())
    except Exception:  # struct.error, SyntaxError, KeyError, ...: metadata never stops a picture
        return pillow.Exif()
    return parsed


def only(exif: Exif, tags: tuple[int, ...], directories: tuple[int, ...] = ()) -> bytes:
    """An EXIF block with these tags and directories of another, as far as they are sound."""
    from PIL import Image as pillow

    kept = pillow.Exif()
    for tag in (*tags, *directories):
        with suppress(Exception):  # struct.error, SyntaxError, KeyError, ...
            value = dict(exif.get_ifd(tag)) if tag in directories else exif.get(tag)
            if isinstance(value, str):  # read as Latin-1 by Pillow, but written as ASCII
                value = value.encode("latin-1", "replace")
            trial = pillow.Exif()
            trial[tag] = value
            if value and trial.tobytes():
                kept[tag] = value
    return kept.tobytes() if len(kept) else b""


def density_of(exif: Exif) -> Density | None:
    """What XResolution, YResolution and ResolutionUnit say (Exif 2.32, section 4.6.4); inch without a unit."""
    try:
        unit = int(exif.get(_RESOLUTION_UNIT, 2))
        return sound_density(float(exif[_X_RESOLUTION]), float(exif[_Y_RESOLUTION]), unit)
    except Exception:  # KeyError, ZeroDivisionError, TypeError, ...: metadata never stops a picture
        return None


def updated(exif: bytes | None, width: int, height: int, density: Density | None) -> bytes | None:
    """An EXIF block whose tags of size are those of the picture; the rest stays byte for byte.

    PixelXDimension, PixelYDimension, and with a density also XResolution, YResolution and ResolutionUnit are set where
    they stand. A damaged block is returned as it is. Where there is none, and a density, a small one is made.
    """
    if not exif:
        return resolution_block(density) if density else None
    block = bytearray(exif.removeprefix(EXIF_PREFIX))
    with suppress(struct.error, KeyError):  # metadata never stops a picture
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        entries = dict(_entries(block, order, struct.unpack_from(order + "I", block, 4)[0]))
        if density:
            x, y = density.x, density.y
            for tag, value in ((_X_RESOLUTION, x), (_Y_RESOLUTION, y)):
                if tag in entries:
                    kind, _, place = struct.unpack_from(order + "HII", block, entries[tag] + 2)
                    if kind == _RATIONAL:
                        struct.pack_into(order + "II", block, place, *_ratio(value))
            if _RESOLUTION_UNIT in entries:
                struct.pack_into(order + "H", block, entries[_RESOLUTION_UNIT] + 8, density.unit)
        if DIRECTORIES[0] in entries:
            (place,) = struct.unpack_from(order + "I", block, entries[DIRECTORIES[0]] + 8)
            entries = dict(_entries(block, order, place))
            for tag, size in ((_PIXEL_X, width), (_PIXEL_Y, height)):
                if tag in entries:
                    struct.pack_into(order + "HII", block, entries[tag] + 2, _LONG, 1, size)
    return EXIF_PREFIX + bytes(block)


def holds_resolution(exif: bytes | None) -> bool:
    """Whether a block has a place for a density."""
    return _X_RESOLUTION in parse_exif(exif)


def resolution_block(density: Density) -> bytes:
    """A block that says nothing but the density."""
    from PIL import Image as pillow
    from PIL.TiffImagePlugin import IFDRational

    made = pillow.Exif()
    made[_X_RESOLUTION] = IFDRational(*_ratio(density.x))
    made[_Y_RESOLUTION] = IFDRational(*_ratio(density.y))
    made[_RESOLUTION_UNIT] = density.unit
    return made.tobytes()


def _entries(block: bytearray, order: str, start: int) -> Iterator[tuple[int, int]]:
    """Tags of a directory and where their entries of 12 bytes stand (TIFF 6.0, section 2)."""
    (count,) = struct.unpack_from(order + "H", block, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        yield struct.unpack_from(order + "H", block, place)[0], place


def _ratio(value: float) -> tuple[int, int]:
    """A fraction that two 32-bit numbers hold."""
    fraction = Fraction(value).limit_denominator(1000 if value < 1e6 else 1)
    return fraction.numerator, fraction.denominator
