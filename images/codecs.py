"""Bytes of an image file to a picture and back, with no file system in it.

Three libraries share the work, each where it is exact. PNG goes through ``imagecodecs`` (libpng):
Pillow cuts 16-bit colour PNG to 8 bit, imagecodecs keeps it, expands palettes, low bit depths and
tRNS, and refuses truncated or damaged data. TIFF goes through ``tifffile`` (which uses imagecodecs
for LZW, Deflate, ...) for the same reason; Pillow only reads its 8-bit forms, of which there are
many, and JPEG, WebP, BMP, GIF and AVIF; JPEG 2000 and deep AVIF go through imagecodecs. imagecodecs
is less than half the size of OpenCV, the usual alternative, and raises where OpenCV prints a warning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from .colour import profile_of
from .exif import DESCRIPTION, DIRECTORIES, holds_resolution, only, parse_exif, updated
from .iso import decode_avif, decode_jpeg2000, is_jpeg2000
from .metadata import TIFF_TAGS, description, sized_xmp, structural, upright
from .picture import MAX_PIXELS, Image, Refused
from .pillow_formats import (
    JPEG_SUFFIXES,
    decode_with_pillow,
    encode_with_pillow,
    jpeg_comment,
    jpeg_density,
    jpeg_holds_xmp,
)
from .png import PNG_SIGNATURE, decode_png, encode_png
from .quiet import quietly
from .signatures import foreign_format, is_avif
from .tiff import TIFF_SIGNATURES, decode_tiff, encode_tiff

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGEST_SIDE",
    "QUALITY_SUFFIXES",
    "READ_SUFFIXES",
    "decode",
    "encode",
    "encoding_bytes",
    "lost",
    "sample_bits",
    "size_of",
]

IMAGE_SUFFIXES = (".bmp", *sorted(JPEG_SUFFIXES), ".png", ".tif", ".tiff", ".webp")
"""Suffixes that can be written, in lower case; folders are searched for them."""

READ_SUFFIXES = (".avif", ".gif", ".j2c", ".j2k", ".jp2")
"""Further suffixes that folders are searched for; such files are read and not written."""

QUALITY_SUFFIXES = (*sorted(JPEG_SUFFIXES), ".webp")
"""Suffixes of formats that know a quality."""

FLATTENED = (*JPEG_SUFFIXES, ".bmp")
"""Suffixes of formats without alpha: pictures are composited on white there."""

ENCODING = {".bmp": 2.5, **dict.fromkeys(JPEG_SUFFIXES, 0.5), ".tif": 1.0, ".tiff": 1.0, ".webp": 14.0}
"""Bytes that are taken while a picture is encoded for each byte of its samples, beside these, the file among them. PNG,
which is not listed, takes two. Measured on a photograph with noise, which packs badly."""

LARGEST_SIDE = {".webp": 16383, **dict.fromkeys(JPEG_SUFFIXES, 65500)}
"""Pixels that a side has at most, by suffix: the limits of WebP and of libjpeg."""

# Tags of an EXIF block for PNG's keywords (W3C PNG, section 11.3.3.1).
_TEXT_TAGS = {"Description": DESCRIPTION, "Software": 305, "Author": 315, "Copyright": 33432}


def decode(data: bytes, most: int = MAX_PIXELS) -> Image:
    """Turn the bytes of a PNG, JPEG, TIFF, WebP, BMP, GIF, AVIF or JPEG 2000 file into a picture.

    Args:
        data: The whole file.
        most: Largest number of pixels, which the file's header says before anything is unpacked.

    Raises:
        Refused: It is sound, but too large, several pictures, of an unusual sample type, or of a format not read.
        Exception: Whatever the libraries raise for damaged data.
    """
    with quietly():  # what concerns pixels is raised; the rest is metadata
        if data.startswith(PNG_SIGNATURE):
            return decode_png(data, most)
        if data.startswith(TIFF_SIGNATURES):
            return decode_tiff(data, most)
        if is_avif(data):
            return decode_avif(data, most)
        if is_jpeg2000(data):
            return decode_jpeg2000(data, most)
        foreign = foreign_format(data)
        if foreign:
            raise Refused(f"it is {foreign}, a format that is not read", "Convert it to PNG, TIFF or JPEG.")
        return decode_with_pillow(data, ("JPEG", "WEBP", "BMP", "GIF"), most=most)


def size_of(file: BinaryIO) -> tuple[int, int] | None:
    """(rows, columns) of the picture in an open file, from its first bytes; None where that cannot be told."""
    from PIL import Image as pillow

    try:
        with quietly(), pillow.open(file) as opened:  # 16-bit colour TIFF included: only the directory is read
            return opened.size[::-1]
    except Exception:  # what is wrong with it, reading it will say
        return None


def encode(suffix: str, image: Image, quality: int | None = None) -> bytes:
    """Turn a picture with finite values into the bytes of a file.

    Args:
        suffix: One of `IMAGE_SUFFIXES`.
        image: The picture; its samples are clamped to 0..1 and rounded to nearest.
        quality: 1 to 100, of a format in `QUALITY_SUFFIXES`; None for 95 (JPEG), and for lossless (WebP).

    Raises:
        Exception: Whatever the libraries raise when the picture does not fit the format.
    """
    with quietly():  # about damaged EXIF only
        if suffix == ".bmp":
            image = upright(image)
        _, height, width = image.pixels.shape
        tiff = suffix in (".tif", ".tiff")
        described = _described(image)
        exif = image.exif
        if not tiff and structural(description(exif)):
            parsed = parse_exif(exif)
            del parsed[DESCRIPTION]
            exif = only(parsed, TIFF_TAGS, DIRECTORIES) or None
        exif = updated(exif, width, height, image.density if exif or suffix == ".webp" else None)
        if described and not image.exif and suffix not in (".png", ".bmp"):
            exif = _with_tags(exif, described)
        image = replace(image, exif=exif, xmp=sized_xmp(image))
        profile = _profile(suffix, image)
        if suffix == ".png":
            return encode_png(image, profile)
        if tiff:
            return encode_tiff(image, profile, described)
        return encode_with_pillow(suffix, image, profile, quality)


def sample_bits(suffix: str, image: Image) -> int | None:
    """Bits of the samples that a file of a suffix will hold of a picture; None where they depend on other values.

    Args:
        suffix: One of `IMAGE_SUFFIXES`.
        image: The picture, of which alpha and bit depth count.
    """
    if image.alpha is not None and suffix in FLATTENED:
        return None
    return image.bit_depth if suffix in (".png", ".tif", ".tiff") else 8


def encoding_bytes(suffix: str, samples: int) -> int:
    """Most bytes that encoding a picture takes beside its samples, roughly.

    Args:
        suffix: One of `IMAGE_SUFFIXES`.
        samples: Bytes of the samples.
    """
    return round(ENCODING.get(suffix, 2.0) * samples)


def lost(suffix: str, image: Image) -> list[str]:
    """What a picture carries and a file of this suffix will not hold, in words that complete "written without".

    Args:
        suffix: One of `IMAGE_SUFFIXES`.
        image: The picture.
    """
    missing = []
    png, tiff, jpeg = suffix == ".png", suffix in (".tif", ".tiff"), suffix in JPEG_SUFFIXES
    if suffix == ".bmp":
        if image.exif and set(parse_exif(image.exif)) - {274}:
            missing.append("its EXIF block")
        if image.xmp:
            missing.append("its XMP packet")
    elif jpeg and not jpeg_holds_xmp(image):
        missing.append("its XMP packet, which is too long")
    if jpeg and len(image.exif or b"") > 65533:
        missing.append("its EXIF block but for the orientation: it is too long")
    described = image.icc_profile is not None or (image.colour and not png)
    if described and (suffix == ".bmp" or _profile(suffix, image) is None):
        missing.append("the description of its colours")
    if not tiff and structural(description(image.exif)):
        missing.append(f"its {structural(description(image.exif))} description, with the scale of a microscope")
    density = image.density
    if density and (
        (suffix == ".bmp" and density.unit == 1)
        or (jpeg and jpeg_density(density) is None)
        or (suffix == ".webp" and image.exif and not holds_resolution(image.exif))
    ):
        missing.append("its pixels an inch")
    if not png:
        held = set() if suffix == ".bmp" or (image.exif and not tiff) else set(_TEXT_TAGS)
        held |= {"Comment"} if jpeg and jpeg_comment(image) else set()
        gone = sorted({keyword for keyword, _ in image.texts} - held)
        missing += [f"its text {', '.join(gone)}"] if gone else []
    return missing


def _profile(suffix: str, image: Image) -> bytes | None:
    """The ICC profile, if its colour space (ICC.1:2022, header bytes 16..19) is the picture's; or what replaces it."""
    space = b"GRAY" if len(image.pixels) == 1 else b"RGB "
    profile = image.icc_profile
    if profile is None and suffix != ".png":
        channels = 3 if suffix == ".webp" else len(image.pixels)  # WebP knows no grey
        return profile_of(image.colour, channels)
    return profile if profile is not None and profile[16:20] == space else None


def _described(image: Image) -> dict[int, bytes]:
    """Tags of an EXIF block, by what PNG's text chunks say."""
    return {_TEXT_TAGS[keyword]: text.encode() for keyword, text in image.texts if keyword in _TEXT_TAGS}


def _with_tags(exif: bytes | None, tags: dict[int, bytes]) -> bytes:
    made = parse_exif(exif)
    for tag, value in tags.items():
        made[tag] = value
    return made.tobytes()
