"""A video through a runner: decoded, restored and encoded at the same time, and never more than a few frames held."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from ...engines.runner import Runner
from ...errors import InputError, VideoError
from ...files import written_beside
from ...images.files import Image
from ...progress import Progress, silent
from ..one_picture import restore_image
from .colour import colour_of
from .encoders import VideoOptions, Written, check_options, is_uncoded, what_is_written
from .files import PIPE, video_target
from .frames import FrameReader, Pixels
from .reader import Unit, VideoReader
from .uncoded import UncodedWriter
from .writer import VideoWriter, refusing

__all__ = ["RestoredVideo", "VideoOptions", "VideoWarning", "plan_video", "restore_video"]

AHEAD = 2
"""Frames that are decoded before they are wanted, and that wait for the encoder."""

LOG = logging.getLogger(__name__)
T = TypeVar("T")
Writer = VideoWriter | UncodedWriter


class VideoWarning(UserWarning):
    """A video is damaged, or has something that is not taken account of."""


@dataclass(frozen=True)
class RestoredVideo:
    """One restored video.

    Attributes:
        source: What was read; ``-`` for standard input.
        output: What was written; ``-`` for standard output.
        frames: How many.
        size_in: (rows, columns) read.
        size_out: (rows, columns) written.
        seconds: Time from the first frame to the end.
        encoder: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name of the format of the frames written.
        damage: What was wrong with the source, in words; empty for nothing. What could be decoded is written.
    """

    source: str
    output: str
    frames: int
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    seconds: float
    encoder: str
    pixel_format: str
    damage: str


def plan_video(source: str | Path, output: str | Path, options: VideoOptions, overwrite: bool) -> str | Path:
    """Checks what can be checked without the model, and says where the video goes.

    Args:
        source: The video, or ``"-"`` for standard input.
        output: File, folder that exists, or ``"-"`` for standard output.
        options: How it is written.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: An option that cannot be, or a terminal where a pipe should be.
        OutputError: The target cannot be written.
        EnvironmentProblem: PyAV is not installed.
    """
    target = video_target(source, output, overwrite)
    check_options(options, target)
    for place, stream, verb in ((source, sys.stdin, "read from"), (target, sys.stdout, "written to")):
        if str(place) == PIPE and stream.isatty():
            raise InputError(f"Frames are not {verb} a terminal.", fix="Name a file instead of -, or use a pipe.")
    return target


def restore_video(
    runner: Runner,
    source: str | Path,
    output: str | Path,
    options: VideoOptions | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> RestoredVideo:
    """Restores a video frame by frame; sound, subtitles, chapters and what is said of it are copied.

    Time stamps, rotation, shape of pixels and colour tags stay, and so do 8 or 10 bits. Memory does not grow with the
    length. The file appears when it is whole: an interrupted run leaves nothing under its name.

    Args:
        runner: What restores a frame; a `TiledRunner` for frames that do not fit.
        source: The video, or ``"-"``: standard input, in any format that needs no seeking, such as YUV4MPEG2.
        output: File whose suffix names the format, folder that exists, or ``"-"``: YUV4MPEG2 to standard output.
        options: How it is written; the defaults unless given.
        overwrite: Whether an existing file may be replaced.
        progress: Told each frame, and of how many, where that is known.

    Raises:
        VideoError: The source is no video that can be decoded, or changes its size.
        OutputError: The output cannot be written, or its format does not hold what is to be copied.
        InputError: An option that cannot be.
        Unsupported: The source's colours are not computed here.
        EnvironmentProblem: PyAV is not installed, or a frame needs more memory than there is.
        BrokenPipeError: Nobody reads standard output any more.
    """
    options = options or VideoOptions()
    target = plan_video(source, output, options, overwrite)
    read: str | Path | IO[bytes] = sys.stdin.buffer if str(source) == PIPE else source
    with closing(VideoReader(read)) as reader:
        first, scale = reader.first, runner.spec.scale
        _warn(reader, str(source))
        colour = colour_of(first)
        size = first.width * scale, first.height * scale
        written = what_is_written(target, options, first.format, colour, size)
        _tell(written, size, colour.depth)
        with _writer(target, reader, written, options, overwrite) as writer:
            start = time.perf_counter()
            frames = _run(runner, reader, FrameReader(colour), writer, progress)
            seconds = time.perf_counter() - start
        damage = reader.damage
        if is_uncoded(target) and reader.uneven:
            _say(f"{source} has frames at uneven times, and {target} has no times: {float(reader.rate):.6g} frames/s.")
    if damage:
        _say(f"{source} is damaged: {damage}. What could be decoded is written.")
    sizes = (first.height, first.width), written.size[::-1]
    names = written.encoder, written.pixel_format
    return RestoredVideo(str(source), str(target), frames, *sizes, seconds, *names, damage)


@contextmanager
def _writer(
    target: str | Path, reader: VideoReader, written: Written, options: VideoOptions, overwrite: bool
) -> Iterator[Writer]:
    """What writes; a file appears when the block is done."""
    if str(target) == PIPE:
        sys.stdout.flush()
        # Not by the interpreter's stream: what cannot be written would fail again at the end, with a code of its own.
        with io.FileIO(os.dup(sys.stdout.fileno()), "wb") as output:
            yield UncodedWriter(io.BufferedWriter(output), "standard output", reader, written, options.raw)
        return
    name = str(target)
    with written_beside(target, overwrite) as place:
        if is_uncoded(target):
            with refusing(name), place.open("xb") as file:
                yield UncodedWriter(file, name, reader, written, raw=False)
            return
        with closing(VideoWriter(place, name, reader, written, options)) as writer:
            yield writer


def _run(runner: Runner, reader: VideoReader, pixels_of: FrameReader, writer: Writer, progress: Progress) -> int:
    """Everything from the reader to the writer; how many frames there were."""
    size, done, start = (reader.first.width, reader.first.height), 0, time.perf_counter()
    total = reader.total

    def decoded() -> Iterator[tuple[Unit, Pixels | None]]:
        for unit in reader.units():
            frame = unit.frame
            if frame is not None and (frame.width, frame.height) != size:
                raise VideoError(
                    f"{reader.name} changes its size from {size[0]}x{size[1]} to {frame.width}x{frame.height}.",
                    fix="Cut it there, and restore the parts.",
                )
            yield unit, None if frame is None else pixels_of(frame)

    with _thread() as decoder, _thread() as encoder:
        waiting: deque[Future[None]] = deque()
        for unit, pixels in _ahead(decoded(), decoder):
            restored = None if pixels is None else restore_image(runner, Image(pixels)).pixels
            waiting.append(encoder.submit(writer.write, unit, restored))
            while len(waiting) > AHEAD:
                waiting.popleft().result()
            if restored is not None:
                done += 1
                progress(f"{done / (time.perf_counter() - start):.2f} frames/s", done, max(total, done) if total else 0)
        for each in waiting:
            each.result()
        encoder.submit(writer.finish).result()
    return done


@contextmanager
def _thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that does one thing after the other; when the block ends, what it has not begun is left undone."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(source: Iterator[T], pool: ThreadPoolExecutor) -> Iterator[T]:
    """The same items, made in another thread before they are wanted."""
    following: Callable[[], Future[T | None]] = lambda: pool.submit(next, source, None)  # noqa: E731
    waiting = deque(following() for _ in range(AHEAD))
    while (item := waiting.popleft().result()) is not None:
        waiting.append(following())
        yield item


def _warn(reader: VideoReader, name: str) -> None:
    """What is not taken account of."""
    if reader.first.interlaced_frame:
        _say(f"{name} is interlaced, and restored as if it were not: deinterlace it first.")
    if any(part.is_alpha for part in reader.first.format.components):
        _say(f"{name} is transparent, and the restored video is not.")


def _say(text: str) -> None:
    warnings.warn(text, VideoWarning, stacklevel=3)


def _tell(written: Written, size: tuple[int, int], depth: int) -> None:
    """What differs from the source."""
    if written.colour.depth < depth:
        LOG.info("%s takes no %d bits: frames become %s", written.encoder, depth, written.pixel_format)
    if written.size != size:
        LOG.info("The last column or row is there twice: %s has even sides", written.pixel_format)
