"""The verb ``restore`` and videos: told, refused, piped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..export import networks
from ..restore.clips import clip, look
from .command import document, run
from .test_process import START, agileir


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """In the current folder, which is this one."""
    return clip(tmp_path / "in.mkv", seconds=0.5, subtitles="subrip")


def test_a_video_is_restored_and_told(source: Path, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.mkv", "-o", "out.mkv", "--crf", 10)
    assert result.exit_code == 0, result.output
    assert all(each in result.stdout for each in ("out.mkv", "24x32", "48x64", "libx264", "frames/s"))
    found = look(Path("out.mkv"))
    assert (len(found.frames), found.frames[0].width) == (5, 64)
    told = document(run("restore", files["onnx"], "in.mkv", "-o", "out.mp4", "--drop", "--codec", "libx265", "--json"))
    assert (told["video"]["frames"], told["video"]["encoder"], told["video"]["damage"]) == (5, "libx265", "")
    assert told["runner"]["target"]


def test_large_frames_go_in_tiles(source: Path, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.mkv", "-o", "out.mkv", "--tile", 16, "--overlap", 4)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("tiles of") == 1  # not for every frame
    assert look(Path("out.mkv")).frames[0].width == 64


def test_the_progress_counts_frames(source: Path, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.mkv", "-o", "out.mkv")
    assert "Restoring in.mkv: " in result.stderr and "frames/s" in result.stderr


def test_a_damaged_video_ends_with_1(files: dict[str, Path], tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", seconds=4)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    result = run("restore", files["onnx"], "in.mkv", "-o", "out.mkv", "--json")
    assert result.exit_code == 1
    assert "warning: in.mkv is damaged" in result.stderr
    assert 0 < document(result)["video"]["frames"] == len(look(Path("out.mkv")).frames) < 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("in.mkv", "-o", "out.png"), "names no video format"),
        (("in.mkv", "picture.png", "-o", "out"), "2 files with a video among them"),
        (("in.mkv", "-o", "out.mkv", "--codec", "nothing"), "no encoder 'nothing'"),
        (("in.mkv", "-o", "-", "--crf", "9"), "uncoded"),
        (("in.mkv", "-o", "out.mp4"), "cannot hold stream 1"),
        (("picture.png", "-o", "out.png", "--crf", "9"), "--crf: there is no video"),
        (("picture.png", "-o", "out.png", "--drop", "--raw"), "--drop, --raw: there is no video"),
        (("gone.mkv", "-o", "out.mkv"), "Cannot read gone.mkv"),
        (("in.mkv", "-o", "out.mkv", "--memory", "1GiB", "--tile", "8"), "--memory chooses a tile"),
    ],
)
def test_refusals(arguments: tuple[str, ...], said: str, source: Path, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert [path.name for path in Path.cwd().iterdir()] == ["in.mkv"]


def test_frames_and_json_do_not_share_a_stream(source: Path, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.mkv", "-o", "-", "--json")
    assert result.exit_code == 2
    assert "both go to standard output" in result.stderr


def test_in_a_pipe(source: Path, files: dict[str, Path]) -> None:
    """Nothing but frames on standard output."""
    command = [sys.executable, "-c", START, "restore", files["onnx"]]
    first = subprocess.run([*command, "in.mkv", "-o", "-"], capture_output=True, check=True)
    assert len(first.stdout) == first.stdout.index(b"\n") + 1 + 5 * (6 + 64 * 48 * 3 // 2)
    assert b"5 frames, 24x32 -> 48x64" in first.stderr
    second = subprocess.run([*command, "-", "-o", "out.mkv"], input=first.stdout, capture_output=True, check=True)
    assert b"out.mkv" in second.stdout
    assert look(Path("out.mkv")).frames[0].width == 128


def test_a_reader_that_leaves_is_no_defect(files: dict[str, Path], tmp_path: Path) -> None:
    clip(tmp_path / "in.mkv", seconds=20)
    command = [sys.executable, "-c", START, "restore", files["onnx"], "in.mkv", "-o", "-"]
    gone = subprocess.Popen(command, stdout=-1, stderr=-1)
    assert gone.stdout and gone.stderr
    gone.stdout.read(9)
    gone.stdout.close()
    told = gone.stderr.read().decode()
    gone.stderr.close()
    assert gone.wait() == 1
    assert "Traceback" not in told and "error" not in told.lower()


def test_help_knows_videos() -> None:
    text = agileir("restore", "--help").stdout
    assert "--codec" in text and "docs/video.md" in text


def test_a_frame_is_restored_as_a_picture_is(tmp_path: Path, files: dict[str, Path]) -> None:
    import numpy as np

    from agileir_export.engines import OnnxRuntimeRunner
    from agileir_export.restore.video.colour import colour_of
    from agileir_export.restore.video.frames import FrameReader

    source = clip(tmp_path / "in.mkv", seconds=0.5, codec="ffv1", kind="yuv444p")
    assert run("restore", files["onnx"], "in.mkv", "-o", "out.mkv", "--codec", "ffv1").exit_code == 0
    before, after = (look(path).frames[2] for path in (source, Path("out.mkv")))
    runner = OnnxRuntimeRunner(networks.exported(files["onnx"].parent, "swinir-light"))
    expected = np.clip(runner.run(FrameReader(colour_of(before))(before)[None])[0], 0, 1)
    assert np.abs(FrameReader(colour_of(after))(after) - expected).max() < 2 / 255  # codes of 8 bits are rounded
