"""A video read from the beginning to the end: frames decoded, all else as packets to copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...errors import EnvironmentProblem, VideoError

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame

__all__ = ["Unit", "VideoReader", "error_text", "load_av"]

COPIED = ("audio", "subtitle", "attachment")
"""Kinds of streams that are copied; of others (camera data, time code) nothing is known."""

PACKETS = 256
"""Most packets that wait for a frame, so that what follows the last frame is not gathered in memory."""

MICROSECONDS = 1_000_000
"""Unit of times of a whole file, FFmpeg's AV_TIME_BASE."""

UNEVEN = 0.5
"""Part of a frame's time by which the next one may come early or late in a video of a constant rate."""

SLACK = 0.5
"""Seconds by which a file may end before the time it tells: audio and video seldom end together."""


def load_av() -> Any:
    """The package PyAV.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise EnvironmentProblem(
            f"Video needs PyAV, which cannot be loaded: {error}.", fix="pip install 'agileir-export[video]'"
        ) from error
    return av


@dataclass(frozen=True)
class Unit:
    """What is passed on at once.

    Attributes:
        frame: A decoded frame; None for packets alone.
        packets: What is to be copied and stands before it.
    """

    frame: VideoFrame | None
    packets: tuple[Packet[Stream], ...]


class VideoReader:
    """Reads one video stream, and what goes with it. As soon as this is made, the first frame is known.

    Args:
        source: A file, or a stream of bytes that need not be seekable.

    Attributes:
        name: How it is called in messages.
        container: PyAV's.
        stream: The video stream.
        copied: Streams to copy, in order.
        left: Streams that are neither, described.
        first: The first frame.
        damaged: How many packets and frames were damaged so far.
        uneven: Whether frames came at another pace than `rate` so far.
        seconds: Time of the last packet's end so far.

    Raises:
        EnvironmentProblem: PyAV is not installed.
        VideoError: No video, or one of which nothing can be decoded.
    """

    def __init__(self, source: str | Path | IO[bytes]) -> None:
        av = load_av()
        self.name = str(source) if isinstance(source, str | Path) else "standard input"
        self.damaged, self.seconds, self.uneven = 0, 0.0, False
        self._broken = False
        piped = "Name the file: some formats, MP4 among them, cannot be read from a pipe."
        self._advice = "Check the path, or copy it again." if isinstance(source, str | Path) else piped
        self._last: int | None = None
        try:
            # a colon in a name is none of a protocol
            place = f"file:{source}" if isinstance(source, str | Path) else source
            self.container = av.open(place, "r", **_lenient(av))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"Cannot read {self.name} as a video.",
                why=f"FFmpeg says: {error_text(error)}.",
                fix=self._advice,
            ) from error
        try:
            self._choose()
            self._units = self._read()
            self._held = self._until_first()
        except BaseException:
            self.close()
            raise

    def _choose(self) -> None:
        """The streams."""
        av = load_av()
        covers = av.stream.Disposition.attached_pic
        films = [stream for stream in self.container.streams.video if not stream.disposition & covers]
        if not films:
            found = ", ".join(stream.type for stream in self.container.streams) or "nothing"
            picture = " Its video stream is a cover picture." if self.container.streams.video else ""
            raise VideoError(f"{self.name} has no video: it holds {found}.{picture}", fix="Name a file with video.")
        self.stream = films[0]
        if self.stream.codec_context is None:
            raise VideoError(
                f"The video in {self.name} cannot be decoded: this FFmpeg does not know its codec.",
                fix="Convert it first.",
            )
        self.stream.thread_type = "AUTO"
        others = [stream for stream in self.container.streams if stream.index != self.stream.index]
        self.copied = [stream for stream in others if stream.type in COPIED]
        self.left = [
            "a cover picture" if stream.type == "video" and stream.disposition & covers else f"a {stream.type} stream"
            for stream in others
            if stream not in self.copied and not (stream.type == "data" and self.container.chapters())
        ]  # in MP4, chapters are a data stream, too

    def _until_first(self) -> list[Unit]:
        """What comes up to the first frame, with it."""
        held = []
        for unit in self._units:
            held.append(unit)
            if unit.frame is not None:
                self.first: VideoFrame = unit.frame
                return held
        raise VideoError(
            f"No frame of {self.name} can be decoded.",
            why=f"It is truncated or damaged: {self.damaged} damaged packets.",
            fix=self._advice,
        )

    def units(self) -> Iterator[Unit]:
        """Everything, once, in the order of the file."""
        while self._held:
            yield self._held.pop(0)
        yield from self._units

    def _read(self) -> Iterator[Unit]:
        waiting: list[Packet[Stream]] = []
        copied = {stream.index for stream in self.copied if stream.type != "attachment"}
        for packet in self._packets():
            if packet.stream_index == self.stream.index:
                for frame in self._decoded(packet):
                    yield Unit(frame, tuple(waiting))
                    waiting = []
            elif packet.stream_index in copied and packet.size:
                waiting.append(packet)
            if len(waiting) >= PACKETS:
                yield Unit(None, tuple(waiting))
                waiting = []
        if waiting:
            yield Unit(None, tuple(waiting))

    def _packets(self) -> Iterator[Packet[Any]]:
        """Of the streams that are of use, at last an empty one for each; damage to the file itself ends them, too."""
        av = load_av()
        found = self.container.demux([self.stream, *(each for each in self.copied if each.type != "attachment")])
        while True:
            try:
                packet = next(found)
            except StopIteration:
                return
            except (av.FFmpegError, OSError):
                self._broken = True
                packet = av.Packet()  # an empty one lets the decoder give what it holds
                packet.stream, packet.time_base = self.stream, self.stream.time_base
                yield packet
                return
            if packet.pts is not None and packet.time_base:
                self.seconds = max(self.seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            yield packet

    def _decoded(self, packet: Packet[Any]) -> list[VideoFrame]:
        av = load_av()
        if packet.has_sidedata("encryption_info"):
            raise VideoError(f"{self.name} is encrypted.", fix="Decrypt it first.")
        try:
            frames: list[VideoFrame] = packet.decode()
        except av.FFmpegError:
            self.damaged += 1
            return []
        for frame in frames:
            self.damaged += frame.is_corrupt
            if frame.pts is not None:
                step = frame.pts - (frame.pts if self._last is None else self._last)
                self.uneven |= bool(step) and abs(step * self.stream.time_base * self.rate - 1) > UNEVEN
                self._last = frame.pts
        return frames

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average; 25 where nothing is known."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def total(self) -> int:
        """How many frames there are; 0 where the file does not tell."""
        told = self.container.duration
        return self.stream.frames or (round(told / MICROSECONDS * self.rate) if told else 0)

    @property
    def _told_end(self) -> float:
        """When the streams that are read end by what the file tells, in seconds; 0 where it does not."""
        read = [stream for stream in (self.stream, *self.copied) if stream.type != "attachment"]
        if all(stream.duration for stream in read):
            return max(float(((each.start_time or 0) + each.duration) * each.time_base) for each in read)
        whole = self.container
        return 0.0 if self.left or not whole.duration else (whole.duration + (whole.start_time or 0)) / MICROSECONDS

    @property
    def damage(self) -> str:
        """After `units`: what is wrong with the file, in words; empty for nothing."""
        found = [f"{self.damaged} damaged packets or frames"] if self.damaged else []
        end = self._told_end
        if self._broken or (end and self.seconds < end - SLACK):
            found.append(f"it ends after {self.seconds:.1f} s" + (f" of {end:.1f} s" if end else ""))
        return ", ".join(found)

    def close(self) -> None:
        """Lets go of the file."""
        self.container.close()


def _lenient(av: Any) -> dict[str, str]:
    """What lets metadata in unknown encodings pass; from PyAV 19 on it always does."""
    return {"metadata_errors": "replace"} if hasattr(av.container.Container, "metadata_errors") else {}


def error_text(error: Exception) -> str:
    """What FFmpeg or the system says, fit for the inside of a sentence."""
    return str(getattr(error, "strerror", None) or error).rstrip(".")
