"""Videos through a runner: what a file holds, its restoration holds, and memory does not grow with its length."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

from agileir_export.restore.video import VideoOptions, VideoWarning, restore_video
from agileir_export.restore.video.frames import samples_of
from agileir_export.restore.video.hdr import hdr_options

from ..scripts import run_python
from .clips import BT709, BT2020_PQ, EVEN, MILLISECOND, UNEVEN, Nearest, clip, look

WAYS = [
    pytest.param(".mkv", "subrip", ".mkv", id="mkv"),
    pytest.param(".mp4", "mov_text", ".mp4", id="mp4"),
    pytest.param(".mp4", "mov_text", ".mkv", id="mp4-mkv"),
    pytest.param(".mov", "mov_text", ".mp4", id="mov-mp4"),
]


# ---- what goes in, comes out ----


@pytest.mark.parametrize(("given", "subtitles", "written"), WAYS)
@pytest.mark.parametrize("deep", [False, True], ids=["8-bit", "10-bit"])
def test_everything_is_kept(given: str, subtitles: str, written: str, deep: bool, tmp_path: Path) -> None:
    tags, kind = (BT2020_PQ, "yuv420p10le") if deep else (BT709, "yuv420p")
    codec = "libx265" if deep else "libx264"
    options: dict[str, Any] = {"steps": UNEVEN, "rotation": 90, "shape": Fraction(4, 3), "sound": True}
    source = tmp_path / f"in{given}"
    clip(source, codec=codec, kind=kind, tags=tags, subtitles=subtitles, base=Fraction(1, 30000), **options)
    target = tmp_path / f"out{written}"
    done = restore_video(Nearest(2), source, target)
    before, after = look(source), look(target)
    assert (done.frames, done.size_in, done.size_out, done.damage) == (12, (24, 32), (48, 64), "")
    assert (done.encoder, done.pixel_format) == (codec, kind)
    assert len(after.frames) == len(before.frames) == 12
    precision = MILLISECOND if written == ".mkv" else 0  # its unit; a difference of two
    shift = after.times[0] - before.times[0]
    assert shift == (Fraction(23, 1000) if given == ".mp4" and written == ".mkv" else 0)  # AAC begins before 0
    assert max(abs(b - a - shift) for a, b in zip(before.times, after.times, strict=True)) <= precision
    assert len({b - a for a, b in zip(after.times, after.times[1:], strict=False)}) > 1
    assert after.tags == before.tags == tags
    first = after.frames[0]
    assert (first.format.name, first.width, first.height, first.rotation) == (kind, 64, 48, 90)
    assert (after.shape, after.title) == (Fraction(4, 3), "film")
    assert (after.metadata["title"], after.metadata["artist"]) == ("Clip", "code")
    assert after.chapters == before.chapters and len(after.chapters) == 2
    assert [data for _, data in after.packets["audio"]] == [data for _, data in before.packets["audio"]]
    sound = zip(before.packets["audio"], after.packets["audio"], strict=True)
    assert max(abs(b - a - shift) for (a, _), (b, _) in sound) <= precision
    plain = [data[2:] if written != ".mkv" else data for _, data in after.packets["subtitle"] if len(data) > 2]
    assert plain == [b"line 0", b"line 1"]
    heard = "und" if given == ".mov" else "deu"  # QuickTime's own languages are no ISO codes
    assert (after.languages["audio"], after.languages["subtitle"]) == (heard, "fra")
    assert [path.name for path in sorted(tmp_path.iterdir())] == [source.name, target.name]


@pytest.mark.parametrize("degrees", [-90, 180])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_whole_display_matrix_is_kept(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    def matrices(path: Path) -> list[bytes]:
        first = look(path).frames[0]
        return [
            bytes(first.side_data[n]) for n in range(len(first.side_data)) if "MATRIX" in first.side_data[n].type.name
        ]

    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as out:
        film = out.add_stream("libx264", rate=10)
        film.set_display_rotation(degrees, hflip=mirrored)
        film.codec_context.width, film.codec_context.height = 32, 24
        out.mux([*film.encode(av.VideoFrame(32, 24, "yuv420p")), *film.encode(None)])
    restore_video(Nearest(), source, tmp_path / "out.mp4")
    assert matrices(tmp_path / "out.mp4") == matrices(source)
    assert len(matrices(source)) == 1


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libsvtav1"])
def test_static_hdr_metadata_is_kept(codec: str, tmp_path: Path) -> None:
    told = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
    source = tmp_path / "in.mkv"
    hdr = {"x265-params": f"log-level=none:repeat-headers=1:{told}"}
    clip(source, seconds=0.3, size=(64, 64), codec="libx265", kind="yuv420p10le", options=hdr, tags=BT2020_PQ)
    restore_video(Nearest(), source, tmp_path / "out.mkv", VideoOptions(codec=codec))
    after = look(tmp_path / "out.mkv")
    assert hdr_options(after.frames[0], "libx265") == {"x265-params": told}
    assert after.tags == BT2020_PQ
    assert hdr_options(after.frames[0], "ffv1") == {}


def test_attachments_go_to_matroska(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        film = out.add_stream("libx264", rate=10)
        film.codec_context.width, film.codec_context.height = 32, 24
        out.add_attachment("font.ttf", "font/ttf", b"letters")
        out.mux([*film.encode(av.VideoFrame(32, 24, "yuv420p")), *film.encode(None)])
    restore_video(Nearest(), source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as found:
        (attached,) = (stream for stream in found.streams if stream.type == "attachment")
        assert (attached.name, attached.mimetype, attached.data) == ("font.ttf", "font/ttf", b"letters")


def test_apple_plays_hevc(tmp_path: Path) -> None:
    clip(tmp_path / "in.mkv", seconds=0.3)
    restore_video(Nearest(), tmp_path / "in.mkv", tmp_path / "out.mp4", VideoOptions(codec="hevc"))
    with av.open(str(tmp_path / "out.mp4")) as found:
        assert found.streams.video[0].codec_context.codec_tag == "hvc1"


# ---- what has to change ----


@pytest.mark.parametrize(
    ("kind", "codec", "suffix", "chosen", "encoder", "became"),
    [
        ("yuv422p", "ffv1", ".mkv", None, "libx264", "yuv422p"),
        ("yuv444p10le", "ffv1", ".mkv", None, "libx265", "yuv444p10le"),
        ("yuv420p12le", "ffv1", ".mkv", "libx264", "libx264", "yuv420p10le"),
        ("yuv420p10le", "ffv1", ".webm", None, "libsvtav1", "yuv420p10le"),
        ("yuv420p", "ffv1", ".webm", None, "libvpx-vp9", "yuv420p"),
        ("gray", "ffv1", ".mkv", None, "libx264", "gray"),
        ("gray10le", "ffv1", ".mkv", "ffv1", "ffv1", "gray10le"),
        ("gray", "ffv1", ".mkv", "libsvtav1", "libsvtav1", "yuv420p"),
        ("gbrp", "libx265", ".mkv", "libx265", "libx265", "gbrp"),
        ("gbrp", "libx265", ".mkv", "libx264rgb", "libx264rgb", "gbrp"),
        ("gbrp10le", "ffv1", ".mkv", "libx264", "libx264", "yuv444p10le"),
        ("bgr0", "ffv1", ".mkv", None, "libx264", "yuv444p"),
        ("yuvj420p", "mjpeg", ".mov", None, "libx264", "yuv420p"),
        ("yuv422p10le", "prores_ks", ".mov", "prores_ks", "prores_ks", "yuv422p10le"),
    ],
)
def test_the_nearest_format_of_pixels(
    kind: str, codec: str, suffix: str, chosen: str | None, encoder: str, became: str, tmp_path: Path
) -> None:
    source = tmp_path / ("in.mov" if codec in ("mjpeg", "prores_ks") else "in.mkv")
    full = 2 if kind.startswith(("yuvj", "gray", "gb", "bg")) else 1
    matrix = 0 if kind.startswith(("gb", "bg")) else 1
    clip(source, seconds=0.3, size=(64, 64), kind=kind, codec=codec, tags=(1, 1, matrix, full))
    done = restore_video(Nearest(), source, tmp_path / f"out{suffix}", VideoOptions(codec=chosen))
    assert (done.encoder, done.pixel_format) == (encoder, became)
    before, after = (
        look(path).frames[1].to_ndarray(format="rgb24").astype(int) for path in (source, Path(done.output))
    )
    assert np.abs(before - after).mean() < 6  # the encoder's loss


def test_odd_sides_become_even_where_chroma_is_subsampled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(tmp_path / "in.mkv", seconds=0.3, size=(33, 25), codec="ffv1")
    with caplog.at_level("INFO"):
        done = restore_video(Nearest(), source, tmp_path / "out.mkv")
    assert done.size_out == (26, 34)
    assert "there twice" in caplog.text
    assert restore_video(Nearest(2), source, tmp_path / "two.mkv").size_out == (50, 66)
    clip(tmp_path / "444.mkv", seconds=0.3, size=(33, 25), codec="ffv1", kind="yuv444p")
    assert restore_video(Nearest(), tmp_path / "444.mkv", tmp_path / "444out.mkv").size_out == (25, 33)


def test_a_shape_of_pixels_that_is_lost_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(tmp_path / "in.mkv", seconds=0.3, shape=Fraction(4, 3))
    with caplog.at_level("INFO"):
        restore_video(Nearest(), source, tmp_path / "out.mkv", VideoOptions(codec="ffv1"))
    assert "pixels are 4/3 as wide" in caplog.text
    assert look(tmp_path / "out.mkv").shape is None
    restore_video(Nearest(), source, tmp_path / "out.mp4", VideoOptions(codec="libsvtav1"))
    assert look(tmp_path / "out.mp4").shape == Fraction(4, 3)


def test_an_unknown_matrix_is_told_as_it_was_taken(tmp_path: Path) -> None:
    """Else a player would guess another one for the larger picture."""
    source = clip(tmp_path / "in.mkv", seconds=0.3, codec="ffv1", tags=(2, 2, 2, 1))
    restore_video(Nearest(2), source, tmp_path / "out.mkv")
    assert look(tmp_path / "out.mkv").tags == (2, 2, 6, 1)


def test_interlaced_and_transparent_video_is_told(tmp_path: Path) -> None:
    source = clip(tmp_path / "i.mkv", seconds=0.3, size=(64, 64), options={"x264-params": "tff=1"})
    with pytest.warns(VideoWarning, match="is interlaced"):
        restore_video(Nearest(), source, tmp_path / "o.mkv")
    source = clip(tmp_path / "a.mkv", seconds=0.3, codec="ffv1", kind="yuva420p")
    with pytest.warns(VideoWarning, match="is transparent"):
        restore_video(Nearest(), source, tmp_path / "p.mkv")


def test_the_decoder_s_own_frames_are_left_alone(tmp_path: Path) -> None:
    """Later frames are predicted from them: a runner that keeps the size must not write into them."""

    class Inverting(Nearest):
        def run(self, images: Any) -> Any:
            return 1 - images

    source = clip(tmp_path / "in.mkv", options={"crf": "0", "g": "100"})
    restore_video(Inverting(), source, tmp_path / "out.mkv", VideoOptions(codec="ffv1"))
    for before, after in zip(look(source).frames, look(tmp_path / "out.mkv").frames, strict=True):
        error = samples_of(after)[0].astype(int) - (16 + 235 - samples_of(before)[0].astype(int))
        assert np.abs(error).max() <= 1


# ---- uncoded frames ----


@pytest.mark.parametrize("kind", ["yuv420p", "yuv422p10le", "gray", "yuv444p12le"])
def test_y4m_there_and_back(kind: str, tmp_path: Path) -> None:
    full = 2 if kind == "gray" else 1
    codec, shape = ("libx264", Fraction(4, 3)) if kind == "yuv420p" else ("ffv1", None)
    source = clip(tmp_path / "in.mkv", codec=codec, kind=kind, shape=shape, tags=(1, 1, 1, full))
    done = restore_video(Nearest(), source, tmp_path / "out.y4m")
    before, after = look(source), look(tmp_path / "out.y4m")
    assert (done.encoder, done.pixel_format) == ("rawvideo", kind)
    assert after.shape == shape and after.times == before.times and after.tags[3] == full
    for one, other in zip(before.frames, after.frames, strict=True):
        for given, found in zip(samples_of(one), samples_of(other), strict=True):
            error = np.abs(given.astype(int) - found)
            assert error.max() <= (0 if given.shape == (24, 32) else 2)  # chroma is resampled
    restore_video(Nearest(2), tmp_path / "out.y4m", tmp_path / "again.mkv", VideoOptions(codec="ffv1"))
    assert look(tmp_path / "again.mkv").frames[0].format.name == kind


def test_uneven_times_do_not_go_into_y4m(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", steps=UNEVEN)
    with pytest.warns(VideoWarning, match="uneven times"):
        assert restore_video(Nearest(), source, tmp_path / "out.y4m").frames == 12
    clip(source, steps=EVEN)
    restore_video(Nearest(), source, tmp_path / "even.y4m")


PIPED = """
import sys
from tests.restore.clips import Nearest
from agileir_export.restore.video import VideoOptions, restore_video
restore_video(Nearest(2), *sys.argv[1:3], VideoOptions(raw="raw" in sys.argv))
"""


def piped(*arguments: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PIPED, *map(str, arguments)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True, **more)


def test_in_a_chain_of_pipes(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=1)
    first = piped(source, "-")
    assert first.stdout.startswith(b"YUV4MPEG2 W64 H48 F10:1 Ip A0:0 C420mpeg2 XCOLORRANGE=LIMITED\nFRAME\n")
    assert len(first.stdout) == first.stdout.index(b"\n") + 1 + 10 * (6 + 64 * 48 * 3 // 2)
    assert first.stderr == b""
    assert len(piped("-", "-", "raw", input=first.stdout).stdout) == 10 * 128 * 96 * 3 // 2
    piped("-", tmp_path / "out.mkv", input=first.stdout)
    assert look(tmp_path / "out.mkv").frames[0].width == 128


# ---- length ----


def test_only_a_few_frames_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agileir_export.restore.video import restoring

    decoded, encoded, most = 0, 0, [0, 0]
    read, write = restoring.FrameReader.__call__, restoring.VideoWriter.write

    def reading(self: Any, frame: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return read(self, frame)

    def writing(self: Any, *unit: Any) -> None:
        nonlocal encoded
        write(self, *unit)
        encoded += 1

    class Counting(Nearest):
        def run(self, images: Any) -> Any:
            done = counted[0]
            most[0], most[1] = max(most[0], decoded - done), max(most[1], done - encoded)
            counted[0] += 1
            return super().run(images)

    counted = [0]
    monkeypatch.setattr(restoring.FrameReader, "__call__", reading)
    monkeypatch.setattr(restoring.VideoWriter, "write", writing)
    restore_video(Counting(), clip(tmp_path / "in.mkv", seconds=5), tmp_path / "out.mkv")
    assert decoded == encoded == counted[0] == 50
    assert most[0] <= restoring.AHEAD + 1 and most[1] <= restoring.AHEAD + 1


def test_decoding_and_encoding_go_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner waits for the next frame to be decoded, and for the one before to be written."""
    from agileir_export.restore.video import restoring

    decoded, written = [Event() for _ in range(11)], [Event() for _ in range(11)]
    read, write = restoring.FrameReader.__call__, restoring.VideoWriter.write
    places = {"decoded": iter(decoded), "written": iter(written)}

    def reading(self: Any, frame: Any) -> Any:
        next(places["decoded"]).set()
        return read(self, frame)

    def writing(self: Any, *unit: Any) -> None:
        write(self, *unit)
        next(places["written"]).set()

    class Waiting(Nearest):
        place = 0

        def run(self, images: Any) -> Any:
            assert self.place == 9 or decoded[self.place + 1].wait(20)
            assert self.place == 0 or written[self.place - 1].wait(20)
            self.place += 1
            return super().run(images)

    monkeypatch.setattr(restoring.FrameReader, "__call__", reading)
    monkeypatch.setattr(restoring.VideoWriter, "write", writing)
    assert restore_video(Waiting(), clip(tmp_path / "in.mkv", seconds=1), tmp_path / "out.mkv").frames == 10


MEASURED = """
import sys
from tests.restore.clips import Nearest
from agileir_export.process_memory import PEAK, process_memory
from agileir_export.restore.video import restore_video
restore_video(Nearest(), *sys.argv[1:])
print(process_memory(PEAK))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames of 18 more seconds would take 415 MB, as R'G'B' in float32."""
    monkeypatch.chdir(Path(__file__).parents[2])
    peaks = []
    for seconds in (2, 20):
        source = tmp_path / f"{seconds}.mkv"
        clip(source, seconds=seconds, rate=25, size=(320, 240), sound=True, subtitles="subrip", steps=(1, 2, 1))
        run = run_python("-c", MEASURED, source, tmp_path / f"out{seconds}.mkv", PYTHONPATH=".")
        peaks.append(int(run.stdout))
    assert peaks[1] - peaks[0] < 40e6, peaks
