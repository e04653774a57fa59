"""Frames of PyAV as float arrays and back: subsampled chroma and any depth of 8 to 16 bits.

libswscale resamples chroma, in 16 bits and where the stream says it lies; `colour` does the rest. A frame goes back
into a copy of the one it came from, and so keeps what is attached to it: times, captions, aspect ratio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .colour import FULL, LIMITED, MIDDLE, RGB, Colour, from_rgb, to_rgb

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

__all__ = ["FrameReader", "FrameWriter", "Pixels", "format_depth", "is_grey", "like", "samples_of", "side_data"]

Pixels = NDArray[np.float32]
SHARES = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}
"""Columns and rows of luma to one of chroma."""


def is_grey(kind: VideoFormat) -> bool:
    """Whether frames of a format hold luma only, with or without alpha."""
    colours = [part for part in kind.components if not part.is_alpha]
    return len(colours) == 1 and not kind.has_palette and not kind.is_rgb


def format_depth(kind: str) -> int:
    """Bits of a sample of a pixel format."""
    from av.video.format import VideoFormat

    return VideoFormat(kind).components[0].bits


def side_data(frame: VideoFrame) -> dict[str, bytes]:
    """What is attached to a frame, by FFmpeg's names without ``AV_FRAME_DATA_``."""
    attached: Any = frame.side_data  # a mapping that gives its entries by number, too
    return {entry.type.name: bytes(entry) for entry in (attached[place] for place in range(len(attached)))}


def like(kind: VideoFormat) -> str:
    """The planar format without alpha that holds the same: ``yuv420p10le`` for P010, ``gbrp`` for packed RGB."""
    depth = min(max(kind.components[0].bits, 8), 16)
    suffix = "" if depth == 8 else f"{depth}le"
    if kind.is_rgb or kind.has_palette:
        return f"gbrp{suffix}"
    if is_grey(kind):
        return f"gray{suffix}"
    share = SHARES.get((64 // kind.chroma_width(64), 64 // kind.chroma_height(64)), "444")
    return f"yuv{share}p{suffix}"


class FrameReader:
    """Turns frames into float32 in 0..1: ``[3, H, W]`` R'G'B', or ``[1, H, W]`` for grey ones.

    Args:
        colour: What the samples mean.
    """

    def __init__(self, colour: Colour) -> None:
        self._colour, self._resample = colour, _Resampler()

    def __call__(self, frame: VideoFrame) -> Pixels:
        """The pixels of a frame."""
        if self._colour.matrix == RGB:
            planes = samples_of(self._resample(frame, like(frame.format)))
            green, blue, red = (plane.astype(np.float32) for plane in planes)
            rgb: Pixels = np.stack([red, green, blue])
            rgb /= np.float32(2**self._colour.depth - 1)
            return rgb
        if is_grey(frame.format):
            (luma,) = samples_of(self._resample(frame, like(frame.format)))
            black, span, _ = (scale / 2 ** (16 - self._colour.depth) for scale in self._colour.scales)
            grey: Pixels = (luma[None].astype(np.float32) - np.float32(black)) / np.float32(span)
            return np.clip(grey, 0, 1, out=grey)
        return to_rgb(np.stack(samples_of(self._resample(frame, "yuv444p16le"))), self._colour)


class FrameWriter:
    """Turns pixels into frames for the encoder.

    Args:
        kind: Pixel format, one that `like` gives.
        colour: What the samples shall mean, with the depth of the format.
        size: Columns and rows of the frames; pixels that lack one are filled up by the last ones again.
    """

    def __init__(self, kind: str, colour: Colour, size: tuple[int, int]) -> None:
        self._kind, self._size, self._colour, self._depth = kind, size, colour, colour.depth
        self._resample, self._carrier = _Resampler(), _Resampler()

    def __call__(self, pixels: Pixels, source: VideoFrame) -> VideoFrame:
        """A frame with pixels, and with all that is attached to another.

        Args:
            pixels: ``[3, H, W]``, or ``[1, H, W]`` of a grey frame, in 0..1.
            source: Where the pixels come from.
        """
        columns, rows = self._size
        pixels = np.pad(pixels, ((0, 0), (0, rows - pixels.shape[1]), (0, columns - pixels.shape[2])), "edge")
        if self._kind.startswith("gbrp"):
            order = pixels[[1, 2, 0]] if len(pixels) == 3 else np.repeat(pixels, 3, 0)
            planes = list(np.rint(order * np.float32(2**self._depth - 1)).astype(np.uint16))
            return self._filled(planes, source, self._kind)
        shift = 16 - self._depth
        planes = [_to_depth(plane, shift) for plane in self._codes(pixels, source)]
        return self._filled(planes, source, self._kind)

    def _codes(self, pixels: Pixels, source: VideoFrame) -> list[NDArray[np.uint16]]:
        """Planes of 16 bits, chroma in its own size."""
        if len(pixels) == 1:
            black, span, _ = self._colour.scales
            luma = np.rint(pixels[0] * np.float32(span) + np.float32(black)).astype(np.uint16)
            codes = [luma, *np.full((2, *luma.shape), MIDDLE, np.uint16)]
        else:
            codes = list(from_rgb(pixels, self._colour))
        if self._kind.startswith("gray"):
            return codes[:1]
        if self._kind.startswith("yuv444"):
            return codes
        share = self._kind.partition("p")[0]
        return samples_of(self._resample(self._filled(codes, source, "yuv444p16le"), f"{share}p16le"))

    def _filled(self, planes: list[NDArray[np.uint16]], source: VideoFrame, kind: str) -> VideoFrame:
        """A frame of new planes, with what is attached to another."""
        frame = self._carrier(source, kind, self._size)
        if frame is source:  # nothing had to change; but decoders still look at these samples
            frame = self._carrier(self._carrier(source, "rgb24", self._size), kind, self._size)
        for place, samples in zip(frame.planes, planes, strict=True):
            stored = _view(place, frame.format)
            stored[...] = samples.astype(stored.dtype, copy=False)
        frame.pict_type = 0  # the encoder chooses
        return frame


class _Resampler:
    """libswscale, always with the same words: codes stay what they are, whatever a frame says of them."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter: VideoReformatter = VideoReformatter()
        self._best, self._quick = Interpolation.LANCZOS, Interpolation.POINT

    def __call__(self, frame: VideoFrame, kind: str, size: tuple[int, int] | None = None) -> VideoFrame:
        """Another format; with a size, quickly: what the samples are does not matter then."""
        if frame.format.name.startswith("yuvj"):  # full range by its name, which would be computed away
            plain = frame.format.name.replace("yuvj", "yuv")
            frame = self._reformatter.reformat(frame, format=plain, src_color_range=FULL, dst_color_range=FULL)
        columns, rows = size or (frame.width, frame.height)
        return self._reformatter.reformat(
            frame,
            width=columns,
            height=rows,
            format=kind,
            src_colorspace=1,
            dst_colorspace=1,
            src_color_range=LIMITED,
            dst_color_range=LIMITED,
            interpolation=self._quick if size else self._best,
            threads=1,
        )


def samples_of(frame: VideoFrame) -> list[NDArray[Any]]:
    """The planes of a planar frame, without copying."""
    return [_view(plane, frame.format) for plane in frame.planes]


def _view(plane: Any, kind: VideoFormat) -> NDArray[Any]:
    """A plane's samples, ``[H, W]``, which may be written."""
    samples = np.frombuffer(plane, np.uint8 if kind.components[0].bits == 8 else np.dtype("<u2"))
    stored: NDArray[Any] = samples.reshape(plane.height, -1)[:, : plane.width]
    return stored


def _to_depth(plane: NDArray[np.uint16], shift: int) -> NDArray[np.uint16]:
    """Codes of 16 bits rounded to fewer."""
    if not shift:
        return plane
    rounded: NDArray[np.uint16] = (plane.astype(np.uint32) + (1 << shift >> 1) >> shift).astype(np.uint16)
    return np.minimum(rounded, np.uint16((1 << 16 - shift) - 1), out=rounded)
