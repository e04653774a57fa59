"""Frames encoded, and with all that is copied put into a file."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import OutputError
from .colour import FULL, LIMITED, UNSPECIFIED
from .encoders import VideoOptions, Written, quality_options
from .frames import FrameWriter, Pixels, side_data
from .hdr import hdr_options
from .reader import Unit, VideoReader, error_text, load_av

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

__all__ = ["VideoWriter", "refusing"]

LOG = logging.getLogger(__name__)

NOT_COPIED = (
    *("encoder", "duration", "bps", "number_of_", "_statistics", "handler_name", "vendor_id"),
    *("major_brand", "minor_version", "compatible_brands"),
)
"""Beginnings of metadata, in lower case, that tell of the file they were in."""

MATROSKA, ISO_MEDIA = ("matroska", "webm"), ("mp4", "mov", "ipod", "3gp", "3g2", "psp")
"""FFmpeg's names of formats of two families: these hold a rotation."""

TELLS_SHAPE = ("libx264", "libx265", "mpeg4", "mpeg2video", "h264_nvenc", "hevc_nvenc")
"""Encoders whose streams tell the shape of pixels: through PyAV 18, Matroska's own entry for it cannot be set."""

MATRIX = struct.Struct("=9i")
"""The display matrix."""


@contextlib.contextmanager
def refusing(name: str) -> Iterator[None]:
    """Errors of FFmpeg and of the system are those of an output.

    Args:
        name: How it is called in messages.

    Raises:
        OutputError: For any but a broken pipe.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (load_av().FFmpegError, OSError, ValueError) as error:
        raise OutputError(
            f"Cannot write {name}.",
            why=f"FFmpeg says: {error_text(error)}.",
            fix="Check free space and permissions; Matroska (.mkv) holds nearly everything.",
        ) from error


class VideoWriter:
    """Writes frames, and what is copied. As soon as this is made, the header is written.

    Args:
        place: The file to write; its suffix names the format.
        name: How it is called in messages.
        reader: Where all comes from.
        written: What becomes of the frames.
        options: How they are written.

    Raises:
        OutputError: The format does not hold what is to go into it, or the file cannot be written.
    """

    def __init__(self, place: Path, name: str, reader: VideoReader, written: Written, options: VideoOptions) -> None:
        self._name, self._reader, self._written, self._options = name, reader, written, options
        self._last: int | None = None
        self._frames = FrameWriter(written.pixel_format, written.colour, written.size)
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 speaks to the terminal by itself
        with refusing(name):
            self._container = load_av().open(f"file:{place}", "w")
        try:
            with refusing(name):
                self._stream = self._video_stream()
                self._copies = self._copied_streams()
                self._container.start_encoding()
        except BaseException:
            self.close()
            raise

    def _video_stream(self) -> Any:
        """The stream of the frames, with all that the source says of them."""
        first, source, written = self._reader.first, self._reader.stream, self._written
        options = quality_options(written.encoder, self._options)
        for name, value in hdr_options(first, written.encoder).items():
            options[name] = ":".join(filter(None, (options.get(name), value)))
        self._base = (first.time_base if first.pts is not None else None) or 1 / self._reader.rate
        stream = self._container.add_stream(
            written.encoder, rate=self._reader.rate, options=options, time_base=self._base
        )
        context, colour = stream.codec_context, written.colour
        context.width, context.height = written.size
        context.pix_fmt = written.own_format
        if source.sample_aspect_ratio:
            context.sample_aspect_ratio = source.sample_aspect_ratio
            if self._in_matroska and written.encoder not in TELLS_SHAPE and source.sample_aspect_ratio != 1:
                LOG.info(
                    "%s: that pixels are %s as wide as high is not kept; MP4 keeps it, or another encoder",
                    self._name,
                    source.sample_aspect_ratio,
                )
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        context.colorspace = UNSPECIFIED if written.pixel_format.startswith("gray") else colour.matrix
        context.color_range = FULL if colour.full else LIMITED
        if context.name == "libx265" and self._container.format.name in ISO_MEDIA:
            context.codec_tag = "hvc1"  # the one of the two that Apple plays
        self._describe(stream, source)
        turned = _display_matrix(first)
        if turned is not None:
            stream.set_display_matrix(turned)
            if self._container.format.name not in MATROSKA + ISO_MEDIA:
                LOG.info("%s does not hold that the video is turned by %d degrees", self._name, first.rotation)
        return stream

    @property
    def _in_matroska(self) -> bool:
        return self._container.format.name in MATROSKA

    def _copied_streams(self) -> dict[int, Any]:
        """A stream for each that is copied, by the index of the latter.

        Raises:
            OutputError: The format cannot hold one, and leaving out was not asked for.
        """
        out, reader, copies, refused = self._container, self._reader, {}, []
        for name, value in reader.container.metadata.items():
            if not name.lower().startswith(NOT_COPIED):
                out.metadata[name] = value
        out.set_chapters(reader.container.chapters())
        for source in reader.copied:
            if source.type == "attachment":
                if self._in_matroska:
                    out.add_attachment(source.name or "", source.mimetype or "", source.data)
                else:
                    LOG.info("%s is written without the attachment %s", self._name, source.name)
                continue
            try:
                if out.format.name == "mpegts" and source.type == "subtitle" and not _codec(source).startswith("dvb"):
                    raise ValueError  # FFmpeg would write it as data of no kind
                if self._in_matroska and _codec(source) == "mov_text":
                    copy = out.add_mux_stream("subrip", time_base=source.time_base)
                else:
                    copy = out.add_stream_from_template(source)
            except ValueError:
                refused.append(f"stream {source.index} ({source.type}, {_codec(source)})")
                continue
            self._describe(copy, source)
            copies[source.index] = copy
        if refused and not self._options.drop:
            raise OutputError(
                f"{self._name} cannot hold {', '.join(refused)} of {reader.name}.",
                why=f"The format {out.format.name} has no place for this codec.",
                fix="Write a Matroska file (.mkv), or leave such streams out with --drop.",
            )
        for left in [*reader.left, *refused]:
            LOG.info("%s is written without %s", self._name, left)
        return copies

    @staticmethod
    def _describe(stream: Any, source: Any) -> None:
        """Language, title and role."""
        for name, value in source.metadata.items():
            if not name.lower().startswith(NOT_COPIED):
                stream.metadata["title" if name == "name" else name] = value  # as MP4 calls it
        stream.disposition = source.disposition

    def write(self, unit: Unit, pixels: Pixels | None) -> None:
        """Writes what is copied, then a frame.

        Args:
            unit: What was read.
            pixels: The restored frame of it, ``[C, H, W]`` in 0..1; None where it has none.

        Raises:
            OutputError: The disk is full, or the system refuses.
        """
        with refusing(self._name):
            for packet in unit.packets:
                self._copy(packet)
            if unit.frame is not None and pixels is not None:
                frame = self._frames(pixels, unit.frame)
                self._date(frame, unit.frame)
                self._container.mux(self._stream.encode(frame))

    def _copy(self, packet: Packet[Any]) -> None:
        copy = self._copies.get(packet.stream_index)
        if copy is None:
            return
        if _codec(packet.stream) == "mov_text" and copy.codec_context is None:
            plain = _plain_text(packet)
            if plain is None:
                return
            packet = plain
        packet.stream = copy
        self._container.mux_one(packet)

    def _date(self, frame: VideoFrame, source: VideoFrame) -> None:
        """The time of a frame, later than that of the one before."""
        earliest = None if self._last is None else self._last + 1
        time = source.pts if source.pts is not None else earliest or 0
        frame.pts = self._last = time if earliest is None else max(time, earliest)
        frame.time_base = self._base

    def finish(self) -> None:
        """Writes what the encoder holds, and the end.

        Raises:
            OutputError: The disk is full, or the system refuses.
        """
        with refusing(self._name):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        with contextlib.suppress(load_av().FFmpegError, OSError):
            self._container.close()


def _codec(stream: Any) -> str:
    """A stream's codec, as FFmpeg names it."""
    context = stream.codec_context
    return "unknown" if context is None else str(context.name)


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """How a player turns the frames; None for not at all."""
    data = side_data(frame).get("DISPLAYMATRIX")
    return None if data is None else MATRIX.unpack_from(data)


def _plain_text(packet: Packet[Any]) -> Packet[Any] | None:
    """A subtitle of 3GPP timed text (TS 26.245: length, text, styles) as text alone; None for an empty one."""
    data = bytes(packet)
    text = data[2 : 2 + int.from_bytes(data[:2], "big")]
    if not text:
        return None
    plain: Packet[Any] = load_av().Packet(text)
    plain.pts, plain.dts, plain.duration, plain.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    plain.is_keyframe = True
    return plain
