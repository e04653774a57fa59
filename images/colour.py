"""PNG's description of colours (gAMA, cHRM, sRGB, cICP) as an ICC profile, for formats that hold nothing else."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["COLOUR_CHUNKS", "profile_of"]

COLOUR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")
"""Chunks that are carried from PNG to PNG; the first that is there counts (W3C PNG, section 4.3)."""

_SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # white, red, green, blue, each as x and y
# ColourPrimaries of ITU-T H.273.
_PRIMARIES = {
    1: _SRGB_PRIMARIES,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# Parametric curves of ICC.1:2022, section 10.18: y = (a x + b)^g from d on, c x below.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
# TransferCharacteristics of ITU-T H.273; PQ (16) and HLG (18) are no curve of this form.
_TRANSFERS = {
    1: _BT709_CURVE,
    4: (2.2,),
    5: (2.8,),
    6: _BT709_CURVE,
    8: (1.0,),
    13: _SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of(chunks: tuple[tuple[bytes, bytes], ...], channels: int) -> bytes | None:
    """An ICC profile (version 4, matrix and curve) that says what the chunks say.

    Args:
        chunks: (type, content) of `COLOUR_CHUNKS`.
        channels: 1 for a grey profile, 3 for RGB.

    Returns:
        The profile; None where there is no chunk, or it names PQ, HLG or other colours that such a profile cannot hold.
    """
    found = dict(chunks)
    try:
        if b"cICP" in found:
            primaries, transfer = _PRIMARIES.get(found[b"cICP"][0]), _TRANSFERS.get(found[b"cICP"][1])
        elif b"sRGB" in found:
            primaries, transfer = _SRGB_PRIMARIES, _SRGB_CURVE
        elif b"gAMA" in found or b"cHRM" in found:
            primaries, transfer = _SRGB_PRIMARIES, _SRGB_CURVE
            if b"cHRM" in found:
                primaries = tuple(n / 100000 for n in struct.unpack(">8I", found[b"cHRM"]))
            if b"gAMA" in found:
                transfer = (100000 / struct.unpack(">I", found[b"gAMA"])[0],)
        else:
            return None
        return None if primaries is None or transfer is None else _profile(primaries, transfer, channels)
    except (struct.error, ArithmeticError, IndexError, np.linalg.LinAlgError):  # damaged: metadata stops no picture
        return None


def _profile(xy: tuple[float, ...], curve: tuple[float, ...], channels: int) -> bytes:
    points = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(xy[::2], xy[1::2], strict=True)])
    white, columns = points[0], points[1:].T
    to_xyz = columns * np.linalg.solve(columns, white)
    cones = _BRADFORD @ white
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD
    to_d50 = adapted @ to_xyz
    kind = {1: 0, 5: 3}[len(curve)]
    tags = {
        b"desc": _text("As the PNG said"),
        b"cprt": _text("None"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50),
        b"chad": b"sf32\0\0\0\0" + _fixed(adapted),
    }
    shape = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(np.array(curve))
    if channels == 1:
        tags[b"kTRC"] = shape
    else:
        for index, colour in enumerate((b"r", b"g", b"b")):
            tags[colour + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(to_d50[:, index])
            tags[colour + b"TRC"] = shape
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    header = bytearray(128)
    struct.pack_into(">I4xI4s4s4s", header, 0, start + len(body), 0x04400000, b"mntr", b"", b"")
    header[16:24] = (b"GRAY" if channels == 1 else b"RGB ") + b"XYZ "
    struct.pack_into(">6H", header, 24, 2000, 1, 1, 0, 0, 0)
    header[36:40] = b"acsp"
    header[68:80] = _fixed(_D50)
    return bytes(header) + table + body


def _fixed(numbers: npt.NDArray[Any]) -> bytes:
    """Numbers as s15Fixed16."""
    return struct.pack(f">{numbers.size}i", *(round(float(n) * 65536) for n in numbers.ravel()))


def _text(text: str) -> bytes:
    """A multiLocalizedUnicode of one record (ICC.1:2022, section 10.15)."""
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
