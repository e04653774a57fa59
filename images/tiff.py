"""TIFF: pixels through tifffile, and through Pillow where a file has at most 8 bits a sample."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np

from .exif import DIRECTORIES, ORIENTATION, density_of, only, parse_exif
from .metadata import TIFF_TAGS
from .picture import (
    EXIF_PREFIX,
    MAX_PIXELS,
    Image,
    Refused,
    TooLarge,
    check_single,
    check_size,
    from_samples,
    to_samples,
)
from .pillow_formats import decode_with_pillow

__all__ = ["TIFF_SIGNATURES", "decode_tiff", "encode_tiff"]

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_XMP, _ICC = 700, 34675
_MOST_PAGES = 10_000
_MOST_SAMPLES, _SMALL = 8, 1 << 22
"""Samples a pixel of the largest picture, of which a smaller one may have more; pixels that any limit unpacks."""
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it says of damage, the error says better


def decode_tiff(data: bytes, most: int = MAX_PIXELS) -> Image:
    """The picture in a TIFF; see `codecs.decode`."""
    import tifffile

    stream = BytesIO(data)
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        check_single(sum(not getattr(other, "is_reduced", False) for other in _pages(file)))
        if page.is_reduced:
            raise Refused("its first picture is only a preview", "Convert it to PNG.")
        check_size(page.imagewidth, page.imagelength, most)
        count = max(math.prod(page.shape), math.prod(page.chunks))  # all samples, and those of a strip or tile
        if count > _MOST_SAMPLES * max(most, _SMALL):
            raise TooLarge(f"it unpacks to {count} samples, over the limit for {most} pixels", "Cut it into pieces.")
        parsed = parse_exif(EXIF_PREFIX + data)
        exif = only(parsed, TIFF_TAGS, DIRECTORIES)
        xmp = page.tags.valueof(_XMP)
        kept: dict[str, Any] = {
            "density": density_of(parsed),
            "xmp": bytes(xmp).rstrip(b"\0") or None if isinstance(xmp, bytes | tuple) else None,
        }
        if page.bitspersample <= 8:
            if ORIENTATION in page.tags:  # Pillow turns the pixels of a TIFF, and only of a TIFF
                page.tags[ORIENTATION].overwrite(1)
            return replace(decode_with_pillow(stream.getvalue(), ("TIFF",), exif, most), **kept)
        kind = tifffile.PHOTOMETRIC(page.photometric)
        usual = kind in (kind.MINISBLACK, kind.MINISWHITE, kind.RGB) and page.imagedepth == 1
        if page.dtype != np.uint16 or not usual:
            raise Refused(
                f"its samples are {page.dtype or page.bitspersample}, {kind.name}",
                "Save it as grey or RGB with 8 or 16 bits.",
            )
        samples = page.asarray()
        if samples.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            samples = samples.transpose(1, 2, 0)
        samples = samples.reshape(page.imagelength, page.imagewidth, -1)
        colours = 3 if kind == kind.RGB else 1
        extra = page.extrasamples[0] if page.extrasamples else tifffile.EXTRASAMPLE.UNSPECIFIED
        samples = samples[:, :, : colours + (extra != tifffile.EXTRASAMPLE.UNSPECIFIED)]
        if kind == kind.MINISWHITE:
            samples = np.concatenate([65535 - samples[:, :, :1], samples[:, :, 1:]], axis=2)
        image = replace(from_samples(samples, exif, page.tags.valueof(_ICC)), **kept)
    if extra == tifffile.EXTRASAMPLE.ASSOCALPHA and image.alpha is not None:
        opaque = np.maximum(image.alpha, np.float32(1 / 65535))
        image = replace(image, pixels=np.minimum(image.pixels / opaque, np.float32(1)))
    return image


def _pages(file: Any) -> Iterator[Any]:
    """The first directories of a file; damage can chain them into a ring, or through millions of places."""
    seen: set[int] = set()
    for page in islice(file.pages, _MOST_PAGES):
        if page.offset in seen:
            raise ValueError("its directories form a ring")
        seen.add(page.offset)
        yield page


def encode_tiff(image: Image, profile: bytes | None, described: dict[int, bytes]) -> bytes:
    """A TIFF of 8 or 16 bits with everything that the picture carries; see `codecs.encode`.

    Args:
        image: The picture.
        profile: Colour profile.
        described: Tags for the main directory, where the picture's EXIF block has none.
    """
    import tifffile

    parsed = parse_exif(image.exif)
    main = parse_exif(only(parsed, TIFF_TAGS))
    tags: list[tuple[int, str, int, Any, bool]] = []
    for code, value in {**described, **dict(main)}.items():
        if isinstance(value, str):
            tags.append((code, "s", 0, value.encode("latin-1", "replace"), True))
        elif isinstance(value, bytes):
            tags.append((code, "s", 0, value, True))
        elif isinstance(value, int):
            tags.append((code, "H", 1, value, True))
    directories = only(parsed, (), DIRECTORIES)
    if directories:
        tags += [(code - 1, "I", 1, 0, True) for code in DIRECTORIES if code in parse_exif(directories)]
    if image.xmp:
        tags.append((_XMP, "B", len(image.xmp), image.xmp, True))
    samples = to_samples(image, image.bit_depth)
    resolution: dict[str, Any] = {}
    if image.density:
        resolution = {"resolution": (image.density.x, image.density.y), "resolutionunit": image.density.unit}
    stream = BytesIO()
    tifffile.imwrite(
        stream,
        samples[:, :, 0] if samples.shape[2] == 1 else samples,
        byteorder="<",
        photometric="rgb" if len(image.pixels) == 3 else "minisblack",
        planarconfig="contig" if samples.shape[2] > 1 else None,
        extrasamples=None if image.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,
        iccprofile=profile,
        extratags=tags,
        **resolution,
    )
    return _with_directories(stream, directories) if directories else stream.getvalue()


def _with_directories(stream: BytesIO, exif: bytes) -> bytes:
    """Appends the Exif and GPS directories to a little-endian TIFF.

    Its main directory has a place for the pointer to each: tifffile refuses their tags, but takes the unused ones just
    before them.
    """
    import tifffile

    data = stream.getvalue()
    data += b"\0" * (len(data) % 2)
    # Offsets in a directory count from the start of the file: Pillow writes it for the place where it will stand.
    start = len(data)
    parsed = parse_exif(exif)
    parsed.endian = "<"
    block = parsed.tobytes(start).removeprefix(EXIF_PREFIX)[8:]
    with tifffile.TiffFile(BytesIO(data)) as file:
        places = {tag.code + 1: tag.offset for tag in file.pages.first.tags}
    written = bytearray(data + block)
    (count,) = struct.unpack_from("<H", block)
    for entry in range(2, 2 + 12 * count, 12):
        tag, _, _, pointer = struct.unpack_from("<HHII", block, entry)
        struct.pack_into("<HHII", written, places[tag], tag, 4, 1, pointer)
    return bytes(written)
