"""Frames as they are, for other programs to read: YUV4MPEG2, or nothing but samples."""

from __future__ import annotations

import re
from typing import IO

import numpy as np

from .encoders import Written
from .frames import FrameWriter, Pixels, samples_of
from .reader import Unit, VideoReader
from .writer import refusing

__all__ = ["UncodedWriter"]


class UncodedWriter:
    """Writes frames uncoded; what would be copied is left out. As soon as this is made, the header is written.

    Args:
        file: Where they go.
        name: How it is called in messages.
        reader: Where they come from.
        written: What becomes of them.
        raw: Whether there are no headers.

    Raises:
        OutputError: The system refuses.
        BrokenPipeError: Nobody reads the pipe any more.
    """

    def __init__(self, file: IO[bytes], name: str, reader: VideoReader, written: Written, raw: bool) -> None:
        self._file, self._name, self._raw = file, name, raw
        self._frames = FrameWriter(written.pixel_format, written.colour, written.size)
        if not raw:
            self._put(_header(reader, written))

    def write(self, unit: Unit, pixels: Pixels | None) -> None:
        """Writes a frame; see `VideoWriter.write`."""
        if unit.frame is not None and pixels is not None:
            frame = self._frames(pixels, unit.frame)
            start = b"" if self._raw else b"FRAME\n"
            self._put(start + b"".join(np.ascontiguousarray(plane).tobytes() for plane in samples_of(frame)))

    def finish(self) -> None:
        """Hands on what is held back."""
        with refusing(self._name):
            self._file.flush()

    def close(self) -> None:
        """Nothing: the file belongs to who opened it."""

    def _put(self, data: bytes) -> None:
        with refusing(self._name):
            self._file.write(data)


def _header(reader: VideoReader, written: Written) -> bytes:
    """The stream header of YUV4MPEG2 (yuv4mpeg(5) of MJPEG tools), with FFmpeg's words for depth and range.

    Chroma lies as in MPEG-2.
    """
    (columns, rows), rate, shape = written.size, reader.rate, reader.stream.sample_aspect_ratio
    match = re.fullmatch(r"(?:yuv(\d{3})p|gray)(\d*)(?:le)?", written.pixel_format)
    assert match is not None
    share, depth = match[1] or "mono", match[2]
    space = f"{share}p{depth}" if depth and match[1] else f"{share}{depth}"
    words = [
        "YUV4MPEG2",
        f"W{columns}",
        f"H{rows}",
        f"F{rate.numerator}:{rate.denominator}",
        "Ip",
        f"A{shape.numerator}:{shape.denominator}" if shape else "A0:0",
        "C420mpeg2" if space == "420" else f"C{space}",
        *([f"XYSCSS={space.upper()}"] if depth else []),
        f"XCOLORRANGE={'FULL' if written.colour.full else 'LIMITED'}",
    ]
    return " ".join(words).encode("ascii") + b"\n"
