"""Video without a network: what the conversion of colours loses, what encoders lose, memory against length, speed.

Usage (from the root of the repository, with the package and its extra ``video`` installed)::

    python benchmarks/video.py --json video.json

Every frame goes through `restore_video` or its parts with a runner that changes nothing. Loss is PSNR in dB of codes,
with the greatest code as peak, over the packaged pictures: once R'G'B' in float32 and back, once from file to file by
the encoders as `restore` uses them. R'G'B' is compared with its definition, and for BT.709 so is libswscale's. Memory
is the peak of resident memory (VmHWM) of a process that restores a video of so many seconds, at 25 frames a second.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from surroundings import surroundings

from agileir_export.images import sample_images
from agileir_export.images.files import read_image
from agileir_export.models import ModelSpec
from agileir_export.process_memory import PEAK, process_memory
from agileir_export.restore.video import VideoOptions, restore_video
from agileir_export.restore.video.colour import Colour
from agileir_export.restore.video.frames import FrameReader, FrameWriter, samples_of

MATRICES = {"bt709": 1, "bt601": 6, "bt2020": 9}
FORMATS = {"yuv420p": 8, "yuv422p": 8, "yuv444p": 8, "yuv420p10le": 10, "yuv444p10le": 10}
ENCODERS = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1")
SECONDS, SIZE = (2, 20, 60), (320, 240)
REPEATS = 5


class Same:
    """A runner that changes nothing."""

    spec = ModelSpec("swinir", "custom", "restoration", 1, 3, window_size=1, pad_multiple=1)

    def run(self, images: Any) -> Any:
        """The images."""
        return images

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"target": "none"}


def pictures() -> list[Any]:
    """The packaged pictures in colour, with even sides, ``[3, H, W]``."""
    found = [read_image(path).pixels for _, path in sample_images()]
    return [each[:, : each.shape[1] // 2 * 2, : each.shape[2] // 2 * 2] for each in found if len(each) == 3]


def encoded(pixels: Any, kind: str, colour: Colour) -> Any:
    """A frame as a camera would give it."""
    carrier = av.VideoFrame(pixels.shape[2], pixels.shape[1], kind)
    carrier.colorspace, carrier.color_range = colour.matrix, 2 if colour.full else 1
    return FrameWriter(kind, colour, (pixels.shape[2], pixels.shape[1]))(pixels, carrier)


def loss(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float | None]:
    """PSNR of luma and chroma between frames of one format; None where nothing differs."""
    squares: dict[str, list[Any]] = {"luma": [], "chroma": []}
    for one, other in pairs:
        top = 2 ** one.format.components[0].bits - 1
        for number, planes in enumerate(zip(samples_of(one), samples_of(other), strict=True)):
            difference = (planes[0].astype(np.float64) - planes[1]) / top
            squares["chroma" if number else "luma"].append(np.square(difference).ravel())
    means = {name: float(np.concatenate(each).mean()) for name, each in squares.items()}
    return {name: None if mean == 0 else -10 * math.log10(mean) for name, mean in means.items()}


def by_libswscale(frame: Any, full: bool) -> Any:
    """R'G'B' of BT.709 in float32 by FFmpeg's converter with its best flags."""
    from av.video.reformatter import VideoReformatter

    best = 0x200 | 0x2000 | 0x4000 | 0x40000  # Lanczos, full chroma there and back, accurate rounding: swscale.h
    words = {"src_colorspace": 1, "dst_colorspace": 1, "src_color_range": 2 if full else 1}
    rgb = VideoReformatter().reformat(frame, format="gbrpf32le", dst_color_range=2, interpolation=best, **words)
    green, blue, red = (np.frombuffer(p, np.float32).reshape(p.height, -1)[:, : p.width] for p in rgb.planes)
    return np.stack([red, green, blue])


def defined(codes: Any, colour: Colour) -> Any:
    """R'G'B' by the definition (ITU-T H.273), in double precision."""
    kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[colour.matrix]
    unit = 2 ** (colour.depth - 8)
    black, luma_span, chroma_span = (0, 256 * unit - 1, 256 * unit - 1) if colour.full else (16, 219, 224)
    scale = 1 if colour.full else unit
    luma = (codes[0] - black * scale) / (luma_span * scale)
    blue, red = ((plane - 128 * unit) / (chroma_span * scale) for plane in codes[1:].astype(np.float64))
    found = np.stack([luma + 2 * (1 - kr) * red, luma, luma + 2 * (1 - kb) * blue])
    found[1] = (luma - kr * found[0] - kb * found[2]) / (1 - kr - kb)
    return found


def definition() -> list[dict[str, Any]]:
    """Greatest error of R'G'B' against the definition, in codes of 8 bits, over random colours within R'G'B'."""
    rows = []
    for kind, depth in (("yuv444p", 8), ("yuv444p10le", 10)):
        for name, matrix in MATRICES.items():
            for full in (False, True):
                colour = Colour(matrix, full, depth)
                frame = encoded(np.random.default_rng(0).random((3, 128, 128), np.float32), kind, colour)
                expected = defined(np.stack(samples_of(frame)), colour)
                inside = ((expected >= 0) & (expected <= 1)).all(0)
                found = {"ours": FrameReader(colour)(frame)}
                if matrix == 1:
                    found["libswscale"] = by_libswscale(frame, full)
                errors = {who: float(255 * np.abs(each - expected)[:, inside].max()) for who, each in found.items()}
                rows.append({"format": kind, "matrix": name, "range": "full" if full else "limited"} | errors)
                print(rows[-1], flush=True)
    return rows


def conversions() -> list[dict[str, Any]]:
    """What R'G'B' in float32 and back loses, without a codec."""
    rows = []
    for kind, depth in FORMATS.items():
        for name, matrix in MATRICES.items():
            for full in (False, True):
                colour = Colour(matrix, full, depth)
                frames = [encoded(each, kind, colour) for each in pictures()]
                writers = [FrameWriter(kind, colour, (frame.width, frame.height)) for frame in frames]
                back = [
                    writer(FrameReader(colour)(frame), frame) for writer, frame in zip(writers, frames, strict=True)
                ]
                found = loss(list(zip(frames, back, strict=True)))
                rows.append({"format": kind, "matrix": name, "range": "full" if full else "limited"} | found)
                print(rows[-1], flush=True)
    return rows


def encoders(folder: Path) -> list[dict[str, Any]]:
    """What encoders lose with the default rate factors, over three frames of each picture."""
    rows = []
    for kind in ("yuv420p", "yuv420p10le"):
        colour = Colour(1, False, FORMATS[kind])
        for encoder in ENCODERS:
            pairs, size, pixels = [], 0, 0
            if encoder == "libvpx-vp9" and colour.depth > 8:
                continue
            for picture in pictures():
                source, target = folder / "in.mkv", folder / "out.mkv"
                frames = [encoded(np.roll(picture, 2 * shift, 2), kind, colour) for shift in range(3)]
                write(source, frames)
                done = restore_video(Same(), source, target, VideoOptions(codec=encoder), overwrite=True)
                with av.open(str(target)) as found:
                    pairs += list(zip(frames, found.decode(video=0), strict=True))
                    size += sum(packet.size for packet in packets(target))
                pixels += 3 * frames[0].width * frames[0].height
            rows.append({"format": kind, "encoder": done.encoder, **loss(pairs), "bits_per_pixel": 8 * size / pixels})
            print(rows[-1], flush=True)
    return rows


def packets(path: Path) -> list[Any]:
    """Of the video."""
    with av.open(str(path)) as found:
        return list(found.demux(video=0))


def write(path: Path, frames: Sequence[Any]) -> None:
    """Frames without loss."""
    with av.open(str(path), "w") as out:
        film = out.add_stream("ffv1", rate=25)
        context = film.codec_context
        context.width, context.height, context.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context.colorspace, context.color_range = int(frames[0].colorspace), int(frames[0].color_range)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(film.encode(frame))
        out.mux(film.encode(None))


def film(path: Path, seconds: int) -> None:
    """A video of a picture that moves, with sound."""
    rows, columns = SIZE[1], SIZE[0]
    picture = np.pad(pictures()[0], ((0, 0), (0, rows), (0, columns)), "symmetric")[:, :rows, :columns]
    colour = Colour(1, False, 8)
    with av.open(str(path), "w") as out:
        seen, heard = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=44100)
        seen.codec_context.width, seen.codec_context.height = SIZE
        for number in range(25 * seconds):
            frame = encoded(np.roll(picture, number, 2), "yuv420p", colour)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(seen.encode(frame))
        out.mux(seen.encode(None))
        for block in range(seconds * 44100 // 1024):
            tone = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            tone.sample_rate, tone.pts, tone.time_base = 44100, block * 1024, Fraction(1, 44100)
            out.mux(heard.encode(tone))
        out.mux(heard.encode(None))


def memory(folder: Path) -> list[dict[str, Any]]:
    """Peaks of processes that restore videos of several lengths."""
    rows = []
    for seconds in SECONDS:
        source = folder / f"{seconds}.mkv"
        film(source, seconds)
        command = [sys.executable, __file__, "--restore", str(source), str(folder / f"{seconds}_out.mkv")]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"seconds": seconds, "peak_bytes": int(run.stdout)})
        print(rows[-1], flush=True)
    return rows


def speed() -> list[dict[str, Any]]:
    """Milliseconds of the conversions of a frame, one thread each."""
    rows = []
    for columns, rows_of in ((1280, 720), (1920, 1080), (3840, 2160)):
        for kind, depth in (("yuv420p", 8), ("yuv420p10le", 10)):
            colour = Colour(1, False, depth)
            pixels = np.random.default_rng(0).random((3, rows_of, columns), np.float32)
            frame = encoded(pixels, kind, colour)
            reader, writer = FrameReader(colour), FrameWriter(kind, colour, (columns, rows_of))
            times: dict[str, list[float]] = {"to_rgb": [], "from_rgb": []}
            for _ in range(REPEATS):
                start = time.perf_counter()
                found = reader(frame)
                middle = time.perf_counter()
                writer(found, frame)
                times["to_rgb"].append(middle - start)
                times["from_rgb"].append(time.perf_counter() - middle)
            medians = {name: 1000 * sorted(each)[REPEATS // 2] for name, each in times.items()}
            rows.append({"columns": columns, "rows": rows_of, "format": kind, **medians})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--restore", nargs=2, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.restore:
        restore_video(Same(), *arguments.restore)
        print(process_memory(PEAK))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            **surroundings(["av", "numpy", "agileir-export"]),
            "ffmpeg": av.ffmpeg_version_info,
            "definition": definition(),
            "conversions": conversions(),
            "encoders": encoders(folder),
            "memory": memory(folder),
            "speed": speed(),
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
