"""AVIF and JPEG 2000: what they say of colours and depth in their boxes, and pixels through imagecodecs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .picture import MAX_PIXELS, Image, Refused, check_size, from_samples
from .pillow_formats import decode_with_pillow

__all__ = ["decode_avif", "decode_jpeg2000", "is_jpeg2000"]

_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_SAVE_AS_PNG = "Save it as PNG or TIFF."


def is_jpeg2000(data: bytes) -> bool:
    """Whether it is a JPEG 2000 file or a bare codestream."""
    return data.startswith((_CODESTREAM, _JP2_SIGNATURE))


def decode_avif(data: bytes, most: int = MAX_PIXELS) -> Image:
    """The picture in an AVIF file: 8 bits as they are, 10 and 12 bits as 16; orientation as EXIF orientation.

    Colours that the file describes by numbers (ITU-T H.273) and not by a profile become a cICP chunk.

    Raises:
        Refused: It is moving, too large, or this Pillow was built without AVIF.
    """
    import imagecodecs
    from PIL import features

    if "avif" not in features.get_supported_modules() or not imagecodecs.AVIF.available:
        raise Refused("it is an AVIF file, and the installed Pillow and imagecodecs cannot read that", _SAVE_AS_PNG)
    image = decode_with_pillow(data, ("AVIF",), most=most)
    place = data.find(b"pixi\0\0\0\0")
    depth = data[place + 9] if place >= 0 else 8
    if depth > 8:
        samples = imagecodecs.avif_decode(data)
        fine = from_samples(samples, image.exif, image.icc_profile, 2**depth - 1)
        image = replace(image, pixels=fine.pixels, alpha=fine.alpha, bit_depth=16)
    place = data.find(b"colrnclx")
    if place >= 0 and image.icc_profile is None:
        primaries, transfer = struct.unpack_from(">HH", data, place + 8)
        if 2 not in (primaries, transfer) and (primaries, transfer) != (1, 13):  # unspecified, and sRGB
            image = replace(image, colour=((b"cICP", bytes([primaries & 255, transfer & 255, 0, 1])),))
    return image


def decode_jpeg2000(data: bytes, most: int = MAX_PIXELS) -> Image:
    """The picture in a JPEG 2000 file (ISO/IEC 15444-1): grey or RGB of up to 16 bits, with alpha and profile.

    Raises:
        Refused: It is too large, or has other colours or samples.
    """
    import imagecodecs

    place = data.index(_CODESTREAM)
    width, height, left, top = struct.unpack_from(">4I", data, place + 8)
    check_size(width - left, height - top, most)
    (components,) = struct.unpack_from(">H", data, place + 40)
    kinds = {data[place + 42 + 3 * i : place + 45 + 3 * i] for i in range(min(components, 5))}
    depth = 1 + (min(kinds)[0] & 127)
    if len(kinds) > 1 or min(kinds)[1:] != b"\1\1" or min(kinds)[0] & 128 or depth > 16 or components > 4:
        raise Refused("it is a JPEG 2000 file with unusual samples", _SAVE_AS_PNG)
    profile = xmp = None
    alpha_kind = 1
    for kind, content in _boxes(data[:place]) if data.startswith(_JP2_SIGNATURE) else ():
        if kind == b"pclr" or (kind == b"colr" and content[:1] == b"\1" and content[3:7] not in _ENUMERATED):
            raise Refused("it is a JPEG 2000 file with unusual colours", _SAVE_AS_PNG)
        if kind == b"colr" and content[:1] == b"\2":
            profile = content[3:]
        elif kind == b"cdef" and components % 2 == 0:
            alpha_kind = struct.unpack_from(">H", content, 2 + 6 * (components - 1) + 2)[0]
        elif kind == b"uuid" and content[:16] == _XMP_UUID:
            xmp = content[16:]
    if components % 2 == 0 and alpha_kind != 1:
        raise Refused("it is a JPEG 2000 file with unusual transparency", _SAVE_AS_PNG)
    samples = np.asarray(imagecodecs.jpeg2k_decode(data))
    image = from_samples(samples, None, profile, 2**depth - 1)
    return replace(image, bit_depth=8 if depth <= 8 else 16, xmp=xmp)


_ENUMERATED = (struct.pack(">I", 16), struct.pack(">I", 17))  # sRGB, and grey with its curve


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of the boxes before the codestream, and of those in the header box."""
    start = 0
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length if length >= 8 else len(data)
        if kind == b"jp2h":
            yield from _boxes(data[start + 8 : end])
        else:
            yield kind, data[start + 8 : end]
        start = end
