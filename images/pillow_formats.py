"""What goes through Pillow: JPEG, WebP, BMP, and for reading GIF, AVIF and TIFF of at most 8 bits."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from .exif import ORIENTATION, density_of, only, parse_exif
from .picture import (
    MAX_PIXELS,
    Density,
    Image,
    Refused,
    TooLarge,
    check_single,
    check_size,
    from_samples,
    on_white,
    sound_density,
    to_samples,
)

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

__all__ = [
    "JPEG_SUFFIXES",
    "decode_with_pillow",
    "encode_with_pillow",
    "jpeg_comment",
    "jpeg_density",
    "jpeg_holds_xmp",
]

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe")

_SEGMENT_LIMIT = 65533  # a marker segment is at most 65535 bytes, its length field included
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"


def decode_with_pillow(data: bytes, formats: tuple[str, ...], exif: bytes = b"", most: int = MAX_PIXELS) -> Image:
    """The picture in a file of one of Pillow's formats; see `codecs.decode`.

    Args:
        data: The whole file.
        formats: Names that Pillow gives the formats to try.
        exif: EXIF block; where empty, the file's own.
        most: Largest number of pixels.
    """
    from PIL import Image as pillow

    try:
        opened = pillow.open(BytesIO(data), formats=formats)
    except pillow.DecompressionBombError:
        raise TooLarge(f"it is over the limit of {MAX_PIXELS} pixels", "Cut it into pieces.") from None
    with opened:
        check_size(*opened.size, most)
        if opened.format in ("WEBP", "GIF", "AVIF"):
            check_single(getattr(opened, "n_frames", 1))
        if opened.mode.startswith("I") or opened.mode == "F":
            raise Refused(f"its samples are of type {opened.mode}", "Save it with 8 or 16 bits.")
        profile = None if opened.mode in ("CMYK", "LAB") else opened.info.get("icc_profile")
        grey = opened.mode in ("1", "L", "LA", "La")
        mode = ("LA" if grey else "RGBA") if opened.has_transparency_data else "L" if grey else "RGB"
        samples = np.asarray(opened.convert(mode))  # loads the file first: some metadata stands at its end
        exif = exif or opened.info.get("exif") or b""
        image = from_samples(samples, exif, profile)
        return replace(image, density=_density(opened, image.exif), xmp=_xmp(opened), texts=_texts(opened))


def _density(opened: PillowImage, exif: bytes | None) -> Density | None:
    info = opened.info
    with suppress(Exception):  # TypeError, ValueError, ...: metadata never stops a picture
        if info.get("jfif_unit"):
            x, y = info["jfif_density"]
            return sound_density(x, y, info["jfif_unit"] + 1)
        if opened.format == "BMP" and "dpi" in info:
            x, y = info["dpi"]
            return sound_density(x, y, 2)
    return density_of(parse_exif(exif)) if exif else None


def _xmp(opened: PillowImage) -> bytes | None:
    xmp = opened.info.get("xmp")
    return xmp.rstrip(b"\0") or None if isinstance(xmp, bytes) else None


def _texts(opened: PillowImage) -> tuple[tuple[str, str], ...]:
    comment = opened.info.get("comment")
    if opened.format not in ("JPEG", "MPO", "GIF") or not isinstance(comment, bytes):
        return ()
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    text = text.rstrip("\0")
    return (("Comment", text),) if text else ()


def encode_with_pillow(suffix: str, image: Image, profile: bytes | None, quality: int | None = None) -> bytes:
    """A JPEG, WebP or BMP with what of the picture's metadata it holds; see `codecs.encode`."""
    from PIL import Image as pillow

    jpeg = suffix in JPEG_SUFFIXES
    if (jpeg or suffix == ".bmp") and image.alpha is not None:
        image = on_white(image)
    samples = to_samples(image, 8)
    if suffix == ".webp" and samples.shape[2] < 3:  # WebP knows no grey
        samples = samples[:, :, [0, 0, 0, *range(1, samples.shape[2])]]
    options: dict[str, Any]
    if jpeg:
        options = {"format": "JPEG", "comment": jpeg_comment(image)}
    elif suffix == ".webp":
        options = {"format": "WEBP", "lossless": quality is None, "exact": True, "xmp": image.xmp or b""}
        options |= {} if quality is None else {"quality": quality}
    else:
        density = image.density
        options = {"format": "BMP", "dpi": density.per(2) if density and density.unit > 1 else (0, 0)}  # 0 is unknown
    if suffix != ".bmp":
        exif = image.exif or b""
        if jpeg and len(exif) > _SEGMENT_LIMIT:
            exif = only(parse_exif(exif), (ORIENTATION,))
        options["exif"] = exif
        options["icc_profile"] = profile
    stream = BytesIO()
    if samples.shape[2] == 1:
        samples = samples[:, :, 0]
    picture: PillowImage = pillow.fromarray(samples[:1, :1] if jpeg else samples)
    picture.save(stream, **options)
    if not jpeg:
        return stream.getvalue()
    # Of Pillow's the segments with the metadata; of libjpeg-turbo itself the picture, which Pillow would copy.
    import imagecodecs

    scan = memoryview(imagecodecs.jpeg8_encode(samples, level=quality or 95, subsampling="444"))
    head = _with_segments(stream.getvalue(), image)
    return b"".join((head[: _tables(head)], scan[_tables(scan) :]))


def _tables(data: bytes | memoryview) -> int:
    """Where the quantisation tables of a JPEG stand, behind all metadata (ITU-T T.81, annex B)."""
    place = 2
    while data[place + 1] != 0xDB:
        place += 2 + int(struct.unpack_from(">H", data, place + 2)[0])
    return place


def jpeg_comment(image: Image) -> bytes:
    """The comment of a JPEG: of the texts, that with the keyword "Comment"."""
    comment = next((text for keyword, text in image.texts if keyword == "Comment"), "").encode()
    return comment if len(comment) <= _SEGMENT_LIMIT else b""


def jpeg_density(density: Density | None) -> tuple[int, int, int] | None:
    """Unit and densities of a JFIF segment (JFIF 1.02); None where it cannot say it."""
    if density is None:
        return None
    x, y = (round(value) for value in density.per(2))
    return (min(density.unit - 1, 1), x, y) if min(x, y) > 0 and max(x, y) < 65536 else None


def jpeg_holds_xmp(image: Image) -> bool:
    """Whether a JPEG has a segment long enough for the packet."""
    return len(_XMP_HEADER + (image.xmp or b"")) <= _SEGMENT_LIMIT


def _with_segments(data: bytes, image: Image) -> bytes:
    """A JPEG with density and XMP packet: Pillow of some versions writes neither as it is."""
    density = jpeg_density(image.density)
    if density and data[2:4] == b"\xff\xe0":
        data = data[:13] + struct.pack(">BHH", *density) + data[18:]
    if not image.xmp or not jpeg_holds_xmp(image):
        return data
    place = 2
    while data[place : place + 2] in (b"\xff\xe0", b"\xff\xe1"):
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    content = _XMP_HEADER + image.xmp
    return data[:place] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[place:]
