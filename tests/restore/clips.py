"""Videos made by code: sound, subtitles, chapters, uneven times, rotation and colour tags as a test wants them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from agileir_export.models import ModelSpec

MILLISECOND = Fraction(1, 1000)
SILENT = {"libx264": {"crf": "0"}, "libx265": {"x265-params": "log-level=none"}}
UNEVEN, EVEN = (1, 2, 1, 3), (1,)
BT709, BT2020_PQ = (1, 1, 1, 1), (9, 16, 9, 1)
"""Primaries, transfer, matrix, range."""


class Nearest:
    """Repeats pixels: a restoration whose result is known."""

    def __init__(self, scale: int = 1) -> None:
        self.spec = ModelSpec("swinir", "custom", "super-resolution", scale, 3, window_size=1, pad_multiple=1)

    def run(self, images: Any) -> Any:
        return images.repeat(self.spec.scale, -2).repeat(self.spec.scale, -1)

    def describe(self) -> dict[str, Any]:
        return {"target": "nearest"}


@dataclass
class Found:
    """What is in a file."""

    frames: list[Any] = field(default_factory=list)
    packets: dict[str, list[Any]] = field(default_factory=dict)
    languages: dict[str, str | None] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: list[tuple[Fraction, Fraction, str]] = field(default_factory=list)
    title: str | None = None
    shape: Any = None
    codec: str = ""

    @property
    def times(self) -> list[Fraction]:
        """Of the frames, in seconds."""
        return [frame.pts * frame.time_base for frame in self.frames]

    @property
    def tags(self) -> tuple[int, ...]:
        """Primaries, transfer, matrix, range of the first frame."""
        first = self.frames[0]
        return tuple(map(int, (first.color_primaries, first.color_trc, first.colorspace, first.color_range)))


def look(path: Path) -> Found:
    """Reads a whole file."""
    found = Found()
    with av.open(str(path)) as container:
        found.metadata = {name.lower(): value for name, value in container.metadata.items()}
        for each in container.chapters():
            start, end = (each[name] * each["time_base"] for name in ("start", "end"))
            found.chapters.append((start, end, each["metadata"]["title"]))
        film = container.streams.video[0]
        found.shape, found.codec = film.sample_aspect_ratio, film.codec_context.name
        found.title = film.metadata.get("title", film.metadata.get("name"))
        found.languages = {stream.type: stream.language for stream in container.streams}
        for packet in container.demux(*(each for each in container.streams if each.type != "data")):
            if packet.stream.type == "video":
                found.frames += packet.decode()
            elif packet.size:
                time = packet.pts * packet.time_base
                found.packets.setdefault(packet.stream.type, []).append((time, bytes(packet)))
    return found


def frame(size: tuple[int, int], number: int, kind: str, tags: tuple[int, ...] = BT709) -> Any:
    """Gradients that move, of colours that stay within R'G'B' when chroma is subsampled."""
    columns, rows = size
    y, x = np.mgrid[:rows, :columns]
    waves = [x / 5 + number, y / 4 + number / 2, (x + y) / 7 - number]
    rgb = 128 + 50 * np.sin(np.stack(np.broadcast_arrays(*waves), -1))
    made = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24").reformat(format=kind)
    made.color_primaries, made.color_trc, made.colorspace, made.color_range = tags
    return made


def clip(
    path: Path,
    *,
    seconds: float = 2,
    size: tuple[int, int] = (32, 24),
    kind: str = "yuv420p",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    tags: tuple[int, ...] = BT709,
    steps: tuple[int, ...] = EVEN,
    base: Fraction = Fraction(1, 90000),
    rate: int = 10,
    rotation: int = 0,
    shape: Fraction | None = None,
    sound: bool = False,
    subtitles: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Makes a video whose frames come `steps` tenths of a second after each other, over and over."""
    with av.open(str(path), "w", container_options=container_options or {}) as out:
        film = out.add_stream(codec, rate=rate, time_base=base, options={**SILENT.get(codec, {}), **(options or {})})
        context = film.codec_context
        context.width, context.height = size
        context.pix_fmt = kind
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        if shape:
            context.sample_aspect_ratio = shape
        if rotation:
            film.set_display_rotation(rotation)
        film.metadata["title"] = "film"
        out.metadata.update(title="Clip", artist="code")
        if sound:
            out.set_chapters([_chapter(1, 0, 800, "one"), _chapter(2, 800, 2000, "two")])
            heard = out.add_stream("aac", rate=44100)
            heard.metadata["language"] = "deu"
        if subtitles:
            read = out.add_mux_stream(subtitles, time_base=MILLISECOND)
            read.metadata["language"] = "fra"
        time, number = Fraction(0), 0
        while time < seconds:
            made = frame(size, number, kind, tags)
            made.pts, made.time_base = round(time / base), base
            out.mux(film.encode(made))
            time += Fraction(steps[number % len(steps)], rate)
            number += 1
        out.mux(film.encode(None))
        if sound:
            for block in range(int(seconds * 44100 / 1024)):
                wave = np.sin((np.arange(1024) + block * 1024) * (2 * np.pi * 440 / 44100)).astype(np.float32)
                tone = av.AudioFrame.from_ndarray(np.stack([wave, wave]) / 5, format="fltp", layout="stereo")
                tone.sample_rate, tone.pts, tone.time_base = 44100, block * 1024, Fraction(1, 44100)
                out.mux(heard.encode(tone))
            out.mux(heard.encode(None))
        for line in range(int(seconds) if subtitles else 0):
            text = f"line {line}".encode()
            data = len(text).to_bytes(2, "big") + text if subtitles == "mov_text" else text
            packet: Any = av.Packet(data)
            packet.stream, packet.time_base = read, MILLISECOND
            packet.pts = packet.dts = line * 1000
            packet.duration, packet.is_keyframe = 500, True
            out.mux(packet)
    return path


def _chapter(number: int, start: int, end: int, title: str) -> Any:
    return {"id": number, "start": start, "end": end, "time_base": MILLISECOND, "metadata": {"title": title}}
