"""Videos that are damaged or are none, outputs that cannot hold them, and runs that end before their time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import pytest

from agileir_export.errors import AgileIRError, EnvironmentProblem, InputError, OutputError, VideoError
from agileir_export.restore.video import VideoOptions, VideoWarning, is_video, plan_video, restore_video
from agileir_export.restore.video.colour import Colour
from agileir_export.restore.video.encoders import what_is_written
from agileir_export.restore.video.reader import VideoReader

from .clips import Nearest, clip, look

ROOT = Path(__file__).parents[2]


class Refusing(Nearest):
    """A runner that must not be asked."""

    def run(self, images: Any) -> Any:
        raise AssertionError("no frame should be restored")


class Failing(Nearest):
    """Ends with an error at its fourth frame."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error, self.left = error, 3

    def run(self, images: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().run(images)


# ---- damage ----


@pytest.mark.parametrize(("suffix", "options"), [(".mkv", {}), (".mp4", {"movflags": "faststart"})])
def test_a_truncated_file_is_restored_as_far_as_it_goes(suffix: str, options: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / f"in{suffix}"
    clip(source, seconds=4, sound=True, options={"g": "5"}, container_options=options)
    whole = len(look(source).frames)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * 0.6)])
    with pytest.warns(VideoWarning, match="is damaged: .*it ends after"):
        done = restore_video(Nearest(), source, tmp_path / "out.mkv")
    assert 5 < done.frames < whole == 40
    assert len(look(tmp_path / "out.mkv").frames) == done.frames
    assert "it ends after" in done.damage


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=4, codec="libx264", options={"g": "5", "bf": "0", "crf": "20"})
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    source.write_bytes(data)
    with pytest.warns(VideoWarning, match="damaged"):
        done = restore_video(Nearest(), source, tmp_path / "out.mkv")
    assert 20 < done.frames <= 40
    assert look(tmp_path / "out.mkv").times[-1] > 3.5


def test_a_sound_file_is_not_called_damaged(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4", "a.ts", "a.avi", "a.mov"):
        sound = name != "a.avi"
        source = clip(tmp_path / name, codec="libx264", sound=sound, options={"bf": "0"}, seconds=3)
        assert restore_video(Nearest(), source, tmp_path / f"{name}.mkv").damage == ""


def test_a_size_that_changes(tmp_path: Path) -> None:
    parts = [clip(tmp_path / f"{side}.ts", size=(side, 24), seconds=1) for side in (32, 64)]
    (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match="changes its size from 32x24 to 64x24"):
        restore_video(Nearest(), tmp_path / "in.ts", tmp_path / "out.mkv")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


# ---- no video ----


def tone() -> Any:
    made = av.AudioFrame(format="s16", layout="stereo", samples=4608)
    made.sample_rate, made.pts = 44100, 0
    return made


def sound_alone(path: Path) -> None:
    with av.open(str(path), "w") as out:
        heard = out.add_stream("flac", rate=44100)
        out.mux([*heard.encode(tone()), *heard.encode(None)])


def cover(path: Path) -> None:
    with av.open(str(path), "w") as out:
        heard = out.add_stream("flac", rate=44100)
        picture = out.add_stream("mjpeg", rate=1)
        context = picture.codec_context
        context.width, context.height, context.pix_fmt = 32, 24, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        out.mux([*picture.encode(av.VideoFrame(32, 24, "yuvj420p")), *picture.encode(None)])
        out.mux([*heard.encode(tone()), *heard.encode(None)])


NONE = {
    "sound": (sound_alone, "has no video: it holds audio"),
    "cover": (cover, "has no video: .*cover picture"),
    "text": (lambda path: path.write_text("no video"), "Cannot read"),
    "empty": (lambda path: path.write_bytes(b""), "Cannot read"),
    "folder": (lambda path: path.mkdir(), "Cannot read"),
    "missing": (lambda path: None, "Cannot read .*No such file"),
}


@pytest.mark.parametrize("kind", NONE)
def test_no_video(kind: str, tmp_path: Path) -> None:
    make, said = NONE[kind]
    source = tmp_path / "in.mp4" if kind == "cover" else tmp_path / "in.mkv"
    make(source)
    with pytest.raises(VideoError, match=said):
        restore_video(Refusing(), source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()


def test_nothing_that_can_be_decoded(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=1, options={"crf": "20"})
    data = bytearray(source.read_bytes())
    start = data.index(bytes.fromhex("1f43b675"))  # the first cluster
    data[start + 60 :] = b"\x55" * (len(data) - start - 60)
    source.write_bytes(data)
    with pytest.raises(VideoError, match=r"No frame of .* can be decoded"):
        restore_video(Refusing(), source, tmp_path / "out.mkv")


def test_what_cannot_be_piped(tmp_path: Path) -> None:
    """The index of an MP4 stands at its end."""
    source = clip(tmp_path / "in.mp4", seconds=4, size=(320, 240), sound=True)
    with subprocess.Popen(["cat", source], stdout=subprocess.PIPE) as process:
        assert process.stdout
        with pytest.raises(VideoError, match=r"Name the file: .*MP4"):
            VideoReader(process.stdout)


def test_an_encrypted_video(tmp_path: Path) -> None:
    key = "00112233445566778899aabbccddeeff"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    source = clip(tmp_path / "in.mp4", seconds=1, container_options=options)
    with pytest.raises(VideoError, match=r"in\.mp4 is encrypted"):
        restore_video(Refusing(), source, tmp_path / "out.mkv")


# ---- what the output cannot be ----


def test_streams_that_do_not_fit_are_refused_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(tmp_path / "in.mkv", sound=True, subtitles="subrip")
    with pytest.raises(OutputError, match=r"stream 2 \(subtitle.*\.mkv"):
        restore_video(Refusing(), source, tmp_path / "out.mp4")
    with pytest.raises(OutputError, match=r"stream 1 \(audio, aac\), stream 2"):
        restore_video(Refusing(), source, tmp_path / "out.webm")
    with pytest.raises(OutputError, match=r"stream 2 \(subtitle"):
        restore_video(Refusing(), source, tmp_path / "out.ts")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
    with caplog.at_level("INFO"):
        restore_video(Nearest(), source, tmp_path / "out.mp4", VideoOptions(drop=True))
    assert "without stream 2 (subtitle" in caplog.text
    assert set(look(tmp_path / "out.mp4").packets) == {"audio"}


@pytest.mark.parametrize(
    ("output", "options", "said"),
    [
        ("out.mkv", VideoOptions(codec="libx999"), "no encoder 'libx999'.*libx264"),
        ("out.mkv", VideoOptions(codec="aac"), "encodes audio"),
        ("out.mkv", VideoOptions(codec="ffv1", crf=3), "ffv1 takes no constant rate"),
        ("out.mkv", VideoOptions(crf=99), "99 cannot be"),
        ("out.y4m", VideoOptions(crf=9), "uncoded"),
        ("out.mkv", VideoOptions(raw=True), "--raw is for"),
        ("out.png", VideoOptions(), "names no video format"),
        ("out", VideoOptions(), "no suffix names no video format"),
        ("in.mkv", VideoOptions(), "its own restoration"),
        ("old.mkv", VideoOptions(), "exists already"),
        ("none/out.mkv", VideoOptions(), "there is no folder"),
    ],
)
def test_refused_before_anything_is_read(output: str, options: VideoOptions, said: str, tmp_path: Path) -> None:
    (tmp_path / "old.mkv").write_bytes(b"old")
    with pytest.raises(InputError, match=said):
        plan_video(tmp_path / "in.mkv", tmp_path / output, options, overwrite=False)


@pytest.mark.parametrize(("codec", "suffix"), [("ffv1", ".webm"), ("libx265", ".avi"), ("prores_ks", ".webm")])
def test_an_encoder_that_does_not_go_into_the_format(codec: str, suffix: str, tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=0.3)
    with pytest.raises(OutputError, match="FFmpeg says"):
        restore_video(Refusing(), source, tmp_path / f"out{suffix}", VideoOptions(codec=codec))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_names_that_look_like_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "plain.mkv", seconds=0.3).rename("part: 1 %d.mkv")
    done = restore_video(Nearest(), "part: 1 %d.mkv", "http:x ü.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["http:x ü.mp4", "part: 1 %d.mkv"]
    assert done.frames == 3


def test_formats_that_encoders_call_otherwise() -> None:
    """Listed by encoders whose hardware is not here."""
    colour = Colour(1, False, 10)
    for encoder in ("hevc_nvenc", "av1_nvenc"):
        if encoder in av.codecs_available:
            options = VideoOptions(codec=encoder)
            written = what_is_written("out.mkv", options, av.VideoFormat("yuv420p10le"), colour, (32, 24))
            assert (written.pixel_format, written.own_format) == ("yuv420p10le", "p010le")
    written = what_is_written(
        "out.mkv", VideoOptions(codec="ffv1"), av.VideoFormat("rgb24"), Colour(0, True, 8), (1, 1)
    )
    assert (written.pixel_format, written.own_format) == ("gbrp", "bgr0")


def test_a_folder_takes_the_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    source = clip(tmp_path / "in.mkv", seconds=0.3)
    assert restore_video(Nearest(), source, tmp_path / "out").output == str(tmp_path / "out" / "in.mkv")
    with pytest.raises(OutputError, match="exists already"):
        restore_video(Refusing(), source, tmp_path / "out")
    restore_video(Nearest(), source, tmp_path / "out", overwrite=True)


FULL = """
import resource, sys
from tests.restore.clips import Nearest
from agileir_export.errors import OutputError
from agileir_export.restore.video import VideoOptions, restore_video
source, target, codec = sys.argv[1:]
if target != "-":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    restore_video(Nearest(), source, target, VideoOptions(codec=codec or None))
except OutputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out.y4m", "-"])
def test_a_full_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # which would leave nothing to be written at the end
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    source = clip(tmp_path / "in.mkv", seconds=3, size=(320, 240))
    target, codec = (name, "") if name == "-" else (str(tmp_path / name), "" if "y4m" in name else "ffv1")
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-c", FULL, source, target, codec]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    assert run.returncode == 1
    assert "Cannot write " in run.stderr and ("No space left" in run.stderr or "File too large" in run.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EnvironmentProblem, match=r"agileir-export\[video\]"):
        plan_video("in.mkv", "out.mkv", VideoOptions(), overwrite=False)


def test_what_is_a_video(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=0.3)
    (tmp_path / "named_otherwise").write_bytes(source.read_bytes())
    (tmp_path / "text.txt").write_text("no video")
    assert is_video("-") and is_video("x.MP4") and is_video(tmp_path / "named_otherwise")
    paths = (tmp_path / "text.txt", tmp_path, tmp_path / "none", "x.png", "x.avif")
    assert not any(is_video(path) for path in paths)


# ---- an end before its time ----


@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_what_is_not_finished_does_not_appear(error: BaseException, tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", sound=True)
    (tmp_path / "out.mkv").write_bytes(b"old")
    with pytest.raises(type(error)):
        restore_video(Failing(error), source, tmp_path / "out.mkv", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]
    assert (tmp_path / "out.mkv").read_bytes() == b"old"


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv")
    with pytest.raises(EnvironmentProblem, match="24x32 pixels needs more memory"):
        restore_video(Failing(MemoryError()), source, tmp_path / "out.mkv")


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from tests.restore.clips import Nearest
from agileir_export.restore.video import restore_video
class Slow(Nearest):
    def run(self, images):
        time.sleep(0.05)
        return super().run(images)
try:
    restore_video(Slow(), *sys.argv[1:])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_a_signal_leaves_nothing_under_the_name(number: signal.Signals, tmp_path: Path) -> None:
    source, target = clip(tmp_path / "in.mkv", seconds=8, sound=True), tmp_path / "out.mkv"
    with subprocess.Popen([sys.executable, "-c", SLOW, source, target], cwd=ROOT) as process:
        while process.poll() is None and not list(tmp_path.glob(".agileir-*")):
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(process.pid, number)
        assert process.wait() == (130 if number == signal.SIGINT else -signal.SIGKILL)
    left = [path for path in tmp_path.iterdir() if path != source]
    assert [path.name for path in left if not path.name.startswith(".agileir-")] == []
    assert len(left) == (0 if number == signal.SIGINT else 1)


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=8, size=(320, 240))
    process = subprocess.Popen([sys.executable, "-c", SLOW, source, "-"], cwd=ROOT, stdout=-1, stderr=-1)
    assert process.stdout and process.stderr
    assert process.stdout.read(9) == b"YUV4MPEG2"
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 1
    assert "BrokenPipeError" in told and "OutputError" not in told


def test_errors_are_typed() -> None:
    assert issubclass(VideoError, AgileIRError) and (VideoError.code, VideoError.exit_code) == ("input.video", 2)
