"""Pictures of every kind that a client may send, good and bad."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as pillow

from agileir_export.images.files import Image, encoded
from agileir_export.images.picture import Density


def good(count: int, side: int = 24, seed: int = 0) -> dict[str, bytes]:
    """Pictures by file name: all formats in turn, grey and colour, alpha, 16 bits, orientation, profile, density."""
    return {name: make(seed + number) for number in range(count) for name, make in [_kind(number, side)]}


def _kind(number: int, side: int) -> tuple[str, Callable[[int], bytes]]:
    suffixes = (".png", ".jpg", ".tif", ".webp", ".bmp", ".png", ".tiff", ".png")
    suffix, deep, alpha, grey = suffixes[number % 8], number % 8 in (2, 5), number % 8 in (3, 7), number % 8 == 6

    def make(seed: int) -> bytes:
        generator = np.random.default_rng(seed)
        shape = (side + seed % 5, side + seed % 3)
        pixels = generator.random((1 if grey else 3, *shape), np.float32)
        more: dict[str, Any] = {}
        if suffix in (".jpg", ".png"):
            exif = pillow.Exif()
            exif[274] = 1 + seed % 8
            exif[305] = "made for a test"
            more = {"exif": exif.tobytes(), "density": Density(300, 300)}
        opacity = generator.random((1, *shape), np.float32) if alpha else None
        picture = Image(pixels, opacity, bit_depth=16 if deep else 8, **more)
        return encoded(Path(f"x{suffix}"), picture)[0]

    return f"{number}{suffix}", make


def bomb() -> bytes:
    """A PNG of 2 500 000 000 pixels in a few kilobytes."""
    side = 50_000

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bad(most_pixels: int, most_bytes: int) -> dict[str, tuple[bytes, str]]:
    """Bad pictures with the code word of their error, by what is wrong."""
    side = int(most_pixels**0.5) + 1
    large = BytesIO()
    pillow.new("L", (side, side)).save(large, "PNG")
    sound = next(iter(good(1).values()))
    return {
        "empty": (b"", "input.image"),
        "text": (b"no picture at all", "input.image"),
        "truncated": (sound[:-100], "input.image"),
        "pdf": (b"%PDF-1.7 and so on", "input.image"),
        "bomb": (bomb(), "limit.pixels"),
        "large": (large.getvalue(), "limit.pixels"),
        "heavy": (sound + bytes(most_bytes), "limit.bytes"),
    }
