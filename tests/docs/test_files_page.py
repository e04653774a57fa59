"""The tables of docs/files.md are what the code does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

from agileir_export.images.codecs import IMAGE_SUFFIXES, READ_SUFFIXES, decode, encode
from agileir_export.images.metadata import description, orientation
from agileir_export.images.picture import Density, Image

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
FORMATS = {"PNG": ".png", "TIFF": ".tif", "JPEG": ".jpg", "WebP": ".webp", "BMP": ".bmp"}
PIXELS = np.linspace(0.2, 0.8, 3 * 8 * 9, dtype=np.float32).reshape(3, 8, 9)
PROFILE = b"\0" * 16 + b"RGB " + b"\0" * 108
EXPOSURE = 0x829A


def exif(**tags: object) -> bytes:
    block = pillow.Exif()
    for tag, value in tags.items():
        block[int(tag[1:])] = value
    return block.tobytes()


def through(suffix: str, **fields: object) -> Image:
    return decode(encode(suffix, replace(Image(PIXELS), **fields)))  # type: ignore[arg-type]


def texts(suffix: str, *given: tuple[str, str]) -> str:
    again = through(suffix, texts=given)
    if again.texts == given:
        return "kept"
    return "as EXIF" if again.exif and given[0][1].encode() in again.exif else "lost"


def kept(found: bool) -> str:
    return "kept" if found else "lost"


def alpha(suffix: str) -> str:
    again = through(suffix, alpha=np.zeros((1, 8, 9), np.float32))
    return "kept" if again.alpha is not None else "on white" if again.pixels.min() == 1 else "lost"


def colours(suffix: str) -> str:
    again = through(suffix, colour=((b"gAMA", b"\0\1\x86\xa0"),))
    return "kept" if again.colour else "as ICC profile" if again.icc_profile else "lost"


def camera(suffix: str) -> str:
    block = pillow.Exif()
    block[271], block[0x8769], block[0x8825] = "maker", {EXPOSURE: 0.25}, {1: "N"}
    again = pillow.Exif()
    again.load(through(suffix, exif=block.tobytes()).exif or b"")
    found = again.get(271), dict(again.get_ifd(0x8769)).get(EXPOSURE), dict(again.get_ifd(0x8825)).get(1)
    return kept(found == ("maker", 0.25, "N"))


def way_up(suffix: str) -> str:
    again = through(suffix, exif=exif(t274=6))
    if again.pixels.shape == (3, 9, 8):
        return "turned"
    return kept(orientation(again) == 6)


ROWS = {
    "16 bits": lambda s: "kept" if through(s, bit_depth=16).bit_depth == 16 else "8 bits",
    "grey": lambda s: "kept" if len(through(s, pixels=PIXELS[:1]).pixels) == 1 else "as colour",
    "transparency": alpha,
    "EXIF: camera, exposure, place": camera,
    "orientation": way_up,
    "printed size": lambda s: kept(
        np.allclose((through(s, density=Density(300, 150)).density or Density(1, 1)).per(2), (300, 150), rtol=1e-3)
    ),
    "ICC profile": lambda s: kept(through(s, icc_profile=PROFILE).icc_profile == PROFILE),
    "gAMA, cHRM, sRGB, cICP": colours,
    "XMP": lambda s: kept(through(s, xmp=b"<x/>").xmp == b"<x/>"),
    "text: author, copyright, description, software": lambda s: texts(s, ("Author", "somebody")),
    "other text": lambda s: texts(s, ("Title", "something")),
    "comment of a JPEG": lambda s: texts(s, ("Comment", "something")),
    "OME-XML, ImageJ, tifffile": lambda s: kept("ImageJ=" in description(through(s, exif=exif(t270="ImageJ=1")).exif)),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_is_kept_and_lost(row: str) -> None:
    found = " | ".join(ROWS[row](suffix) for suffix in FORMATS.values())
    assert f"| {row} | {found} |" in PAGE


def test_the_page_has_every_row_and_no_other() -> None:
    table = PAGE.split("| | PNG | TIFF | JPEG | WebP | BMP |\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.split(" | ")[0][2:] for line in table] == list(ROWS)


def test_every_suffix_is_named() -> None:
    table = PAGE.split("## Written")[0]
    assert all(f"`{suffix}`" in table for suffix in IMAGE_SUFFIXES + READ_SUFFIXES)
