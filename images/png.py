"""PNG: pixels through libpng (imagecodecs), chunks by the letter of W3C PNG (third edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from .colour import COLOUR_CHUNKS
from .picture import (
    EXIF_PREFIX,
    MAX_PIXELS,
    Density,
    Image,
    check_single,
    check_size,
    from_samples,
    sound_density,
    to_samples,
)

__all__ = ["PNG_SIGNATURE", "decode_png", "encode_png"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # signature and IHDR
_LIMIT = 1 << 26  # bytes; larger profiles and texts are an attack
_XMP = "XML:com.adobe.xmp"
_RAW_PROFILE = "Raw profile type "
"""Keyword of ImageMagick's way to keep a profile as text: a name, a length, and hexadecimal digits."""


@dataclass
class _Found:
    """What the chunks of a file say."""

    exif: bytes | None = None
    profile: bytes | None = None
    density: Density | None = None
    xmp: bytes | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    colour: list[tuple[bytes, bytes]] = field(default_factory=list)
    left: int = _LIMIT

    def take(self, kind: bytes, content: bytes) -> None:
        if kind == b"acTL":
            check_single(struct.unpack_from(">I", content)[0])
        elif kind == b"eXIf":
            self.exif = content
        elif kind == b"iCCP":  # name, zero byte, method byte, zlib stream
            self.profile = self.inflated(content.partition(b"\0")[2][1:])
        elif kind in COLOUR_CHUNKS:
            self.colour.append((kind, content))
        elif kind in (b"pHYs", b"tEXt", b"zTXt", b"iTXt"):
            with suppress(ValueError, IndexError, struct.error, zlib.error):  # metadata never stops a picture
                if kind == b"pHYs":
                    x, y, unit = struct.unpack(">IIB", content)
                    self.density = sound_density(x / 100, y / 100, 3) if unit == 1 else sound_density(x, y, 1)
                else:
                    self.take_text(*self.text(kind, content))

    def take_text(self, keyword: str, text: str) -> None:
        name = keyword.removeprefix(_RAW_PROFILE).lower()
        if keyword == _XMP:
            self.xmp = text.encode()
        elif name == keyword.lower():
            self.texts.append((keyword, text))
        else:
            content = bytes.fromhex("".join(text.strip().split("\n")[2:]))
            if name == "xmp" or content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                self.xmp = self.xmp or content.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
            elif name in ("exif", "app1"):
                self.exif = self.exif or content
            elif name in ("icc", "icm"):
                self.profile = self.profile or content

    def inflated(self, packed: bytes) -> bytes:
        """What a zlib stream holds; all streams of a file together are cut at the limit."""
        content = zlib.decompressobj().decompress(packed, self.left) if self.left else b""
        self.left -= len(content)
        return content

    def text(self, kind: bytes, content: bytes) -> tuple[str, str]:
        """Keyword and text of a chunk (W3C PNG, section 11.3.3)."""
        name, _, rest = content.partition(b"\0")
        keyword = name.decode("latin-1")
        if kind == b"tEXt":
            return keyword, rest.decode("latin-1")
        if kind == b"zTXt":
            return keyword, self.inflated(rest[1:]).decode("latin-1")
        packed = rest[:1] == b"\1"
        text = rest[2:].split(b"\0", 2)[2]  # after the language and the keyword in that language
        return keyword, (self.inflated(text) if packed else text).decode()


def decode_png(data: bytes, most: int = MAX_PIXELS) -> Image:
    """The picture in a PNG; see `codecs.decode`."""
    import imagecodecs

    width, height = struct.unpack_from(">II", data, 16)
    check_size(width, height, most)
    found = _Found()
    for kind, content in _chunks(data):
        found.take(kind, content)
    image = from_samples(imagecodecs.png_decode(data), found.exif, found.profile)
    return replace(image, density=found.density, xmp=found.xmp, texts=tuple(found.texts), colour=tuple(found.colour))


def encode_png(image: Image, profile: bytes | None) -> bytes:
    """A PNG of 8 or 16 bits with everything that the picture carries; see `codecs.encode`."""
    import imagecodecs

    data = memoryview(imagecodecs.png_encode(to_samples(image, image.bit_depth)))
    chunks = b"".join(_chunk(kind, content) for kind, content in image.colour)
    if profile is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if image.density is not None:
        x, y = image.density.per(3)
        metre = image.density.unit > 1
        sizes = [round(value * (100 if metre else 1)) for value in (x, y)]
        if min(sizes) > 0 and max(sizes) < 2**31:
            chunks += _chunk(b"pHYs", struct.pack(">IIB", *sizes, metre))
    if image.exif is not None:
        chunks += _chunk(b"eXIf", image.exif.removeprefix(EXIF_PREFIX))
    if image.xmp:
        chunks += _chunk(b"iTXt", _XMP.encode() + b"\0\0\0\0\0" + image.xmp)
    for keyword, text in image.texts:
        name = keyword.encode("latin-1")
        try:
            chunks += _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
        except UnicodeEncodeError:
            chunks += _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())
    return b"".join((data[:_HEADER_END], chunks, data[_HEADER_END:]))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of every chunk of a PNG (W3C PNG, section 5.3)."""
    start = len(PNG_SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        yield data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        start += length + 12


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
