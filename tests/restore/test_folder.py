"""Folders that finish: one bad picture is named and the rest is done, and a killed run goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agileir_export.restore.folder as folder_module
from agileir_export.errors import (
    AgileIRError,
    EnvironmentProblem,
    ImageError,
    InputError,
    InternalError,
    OutputError,
)
from agileir_export.images.files import Image, read_image, write_image
from agileir_export.restore import Restoration, restore_pictures
from agileir_export.restore.journal import JOURNAL, Journal
from agileir_export.restore.pipeline import REPEATED

from .small_folders import BROKEN, Doubling, contents, make_pictures, spoil, start

LINES = {"begun": ("source", "size", "mtime_ns", "runner"), "done": ("bytes",)}


def restored(runner: Any, *inputs: Any, to: Any, **options: Any) -> Restoration:
    return restore_pictures(runner, inputs, to, **options)


def assert_doubled(source: Path, output: Path) -> None:
    expected = read_image(source).pixels.repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(read_image(output).pixels, expected)


def run_with_broken_ones(tmp_path: Path, count: int, broken: int) -> None:
    """Every so many pictures one is broken."""
    files = make_pictures(tmp_path / "in", count)
    step = count // broken
    bad = {spoil(files[number * step], BROKEN[number % len(BROKEN)]) for number in range(broken)}
    log = tmp_path / "log.jsonl"
    found = restored(runner := Doubling(), tmp_path / "in", to=tmp_path / "out", recursive=True, log=log)
    assert {failed.source for failed in found.failed} == bad
    assert all(
        isinstance(failed.error, ImageError) and failed.source.name in failed.error.what for failed in found.failed
    )
    assert len(found.done) == runner.count == count - broken and not found.skipped
    names = {done.output.relative_to(tmp_path / "out").as_posix() for done in found.done}
    assert set(contents(tmp_path / "out")) == names
    for done in found.done:
        assert_doubled(done.source, done.output)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == count
    assert {line["source"] for line in lines if line["status"] == "failed"} == {str(file) for file in bad}
    assert {line["output"] for line in lines if line["status"] == "done"} == {str(done.output) for done in found.done}
    told = found.to_json()
    assert [len(told[name]) for name in ("files", "skipped", "failed")] == [count - broken, 0, broken]
    assert json.loads(json.dumps(told))["failed"][0]["error"]["code"] == "input.image"


def test_broken_pictures_are_named_and_the_rest_is_done(tmp_path: Path) -> None:
    run_with_broken_ones(tmp_path, 24, len(BROKEN))


@pytest.mark.slow
def test_a_thousand_pictures_of_which_fifty_are_broken(tmp_path: Path) -> None:
    run_with_broken_ones(tmp_path, 1000, 50)


# ---- killed, and resumed ----


def kill_and_resume(tmp_path: Path, count: int, kills: int) -> None:
    """Kills a run at random moments, as the journal grows, and resumes it each time."""
    files = make_pictures(tmp_path / "in", count // 2)
    files += make_pictures(tmp_path / "in" / "deeper", count - count // 2, seed=1)
    for number, kind in enumerate(BROKEN):
        spoil(files[number * 2], kind)
    restored(Doubling(), tmp_path / "in", to=tmp_path / "straight", recursive=True)
    expected = contents(tmp_path / "straight")
    moments = random.Random(7)
    output, journal = tmp_path / "out", tmp_path / "out" / JOURNAL
    runs, size = 0, 0
    for _ in range(kills):
        process = start(tmp_path / "in", output, "--resume", seconds=0.002)
        target = size + moments.randrange(20_000 * count // 1000)
        while process.poll() is None and (not journal.exists() or journal.stat().st_size < target):
            threading.Event().wait(0.0005 + 0.001 * moments.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        runs += process.returncode == -signal.SIGKILL
        whole = {name: data for name, data in contents(output).items() if not Path(name).name.startswith(".agileir")}
        assert all(expected[name] == data for name, data in whole.items())
        size = journal.stat().st_size if journal.exists() else 0
    assert runs == kills
    process = start(tmp_path / "in", output, "--resume")
    said, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    _, done, skipped, failed = map(int, said.split())
    assert (done + skipped, failed) == (len(expected), len(BROKEN))
    assert contents(output) == expected  # no temporary file is left, either
    finished = [line for line in journal.read_bytes().splitlines() if line.startswith(b'{"done"')]
    assert len(finished) <= len(expected) + 5 * kills


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 60, 1)


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 1000, 10)


@pytest.mark.parametrize("cut", ["renamed", "begun", "torn", "lost"])
def test_where_the_end_may_have_come(cut: str, tmp_path: Path) -> None:
    """The journal as it stands when a run is killed at every step of the last picture."""
    make_pictures(tmp_path / "in", 4)
    out = tmp_path / "out"
    restored(Doubling(), tmp_path / "in", to=out)
    expected = contents(out)
    lines = (out / JOURNAL).read_bytes().splitlines(keepends=True)
    last = next(line for line in lines if line.startswith(b'{"done": "3.png"'))
    kept = [line for line in lines if line != last]
    if cut == "torn":
        kept.append(last[: len(last) // 2])
    elif cut == "lost":  # the power failed before the data was on the disk
        kept.append(last)
        (out / "3.png").write_bytes(b"")
    elif cut == "begun":
        (out / "3.png").unlink()
        (out / ".agileir-0123.tmp").write_bytes(b"half")
    (out / JOURNAL).write_bytes(b"".join(kept))
    found = restored(runner := Doubling(), tmp_path / "in", to=out, resume=True)
    assert ([done.output.name for done in found.done], runner.count) == (["3.png"], 1)
    assert {skipped.reason for skipped in found.skipped} == {"done before"} and len(found.skipped) == 3
    assert contents(out) == expected
    again = restored(runner, tmp_path / "in", to=out, resume=True)
    assert (runner.count, len(again.skipped)) == (1, 4)
    for line in (out / JOURNAL).read_bytes().splitlines():
        if not line or line == last[: len(last) // 2]:
            continue
        told = json.loads(line)
        kind = "begun" if "begun" in told else "done"
        assert set(told) == {kind, *LINES[kind]}


def test_changed_sources_models_and_options_are_restored_again(tmp_path: Path) -> None:
    files = make_pictures(tmp_path / "in", 3)
    out, source = tmp_path / "out", tmp_path / "in"

    def count(runner: Doubling, **options: Any) -> int:
        restored(runner, source, to=out, resume=True, **options)
        return runner.count

    assert [count(Doubling()), count(Doubling())] == [3, 0]
    write_image(files[1], Image(np.zeros((3, 16, 16), np.float32)), overwrite=True)
    assert count(Doubling()) == 1
    assert read_image(out / "1.png").pixels.max() == 0
    os.utime(files[2], ns=(0, 0))
    assert [count(Doubling()), count(Doubling("another")), count(Doubling("another"))] == [1, 3, 0]
    assert [count(Doubling("another"), seam_psnr=50.0), count(Doubling("another"))] == [3, 3]
    (out / "0.png").unlink()
    assert count(Doubling("another")) == 1


def test_what_is_not_ours_is_not_replaced_on_resume(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").write_bytes(b"mine")
    for options in ({}, {"resume": True}):
        with pytest.raises(OutputError, match=r"1\.png exists already"):
            restored(Doubling(), tmp_path / "in", to=tmp_path / "out", **options)
    found = restored(Doubling(), tmp_path / "in", to=tmp_path / "out", skip_existing=True)
    assert [(skipped.output.name, skipped.reason) for skipped in found.skipped] == [("1.png", "exists")]
    assert [done.output.name for done in found.done] == ["0.png", "2.png"]
    assert (tmp_path / "out" / "1.png").read_bytes() == b"mine"
    found = restored(Doubling(), tmp_path / "in", to=tmp_path / "out", skip_existing=True, resume=True)
    assert [skipped.reason for skipped in found.skipped] == ["done before", "exists", "done before"]
    with pytest.raises(InputError, match="both replaced and skipped"):
        restored(Doubling(), tmp_path / "in", to=tmp_path / "out", skip_existing=True, overwrite=True)
    with pytest.raises(InputError, match="not resumed"):
        restored(Doubling(), tmp_path / "in" / "0.png", to=tmp_path / "0.png", resume=True)


def test_one_run_a_folder(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out", "key"), pytest.raises(OutputError, match="Another run"):
        restored(Doubling(), tmp_path / "in", to=tmp_path / "out")
    assert len(restored(Doubling(), tmp_path / "in", to=tmp_path / "out").done) == 2


def test_an_output_may_be_taken_away_as_soon_as_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "in", 3)
    (tmp_path / "taken").mkdir()
    replace = Path.replace

    def taken(path: Path, target: Path) -> Any:
        return replace(replace(path, target), tmp_path / "taken" / target.name)

    monkeypatch.setattr(Path, "replace", taken)
    assert len(restored(Doubling(), tmp_path / "in", to=tmp_path / "out").done) == 3
    assert sorted(contents(tmp_path / "taken")) == ["0.png", "1.png", "2.png"]


# ---- what ends a run ----


def test_a_single_picture_keeps_its_error(tmp_path: Path) -> None:
    (picture,) = make_pictures(tmp_path, 1)
    spoil(picture, "text")
    with pytest.raises(ImageError, match=r"0\.png"):
        restored(Doubling(), picture, to=tmp_path / "out.png")
    found = restored(Doubling(), picture, to=tmp_path / "out.png", keep_going=True)
    assert len(found.failed) == 1
    make_pictures(tmp_path / "in", 2)
    spoil(tmp_path / "in" / "0.png", "text")
    with pytest.raises(ImageError, match=r"0\.png"):
        restored(Doubling(), tmp_path / "in", to=tmp_path / "out", keep_going=False)


class Weak(Doubling):
    """Fails with an unexpected error at some pictures."""

    def __init__(self, *bad: int, text: str = "shape {}") -> None:
        super().__init__()
        self.bad, self.text = bad, text

    def run(self, images: Any) -> Any:
        result = super().run(images)
        if self.count - 1 in self.bad:
            raise RuntimeError(self.text.format(self.count))
        return result


def test_an_unexpected_error_is_the_pictures(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 6)
    found = restored(Weak(1, 2, 3), tmp_path / "in", to=tmp_path / "out")
    assert [failed.error.what for failed in found.failed] == [f"RuntimeError: shape {n}" for n in (2, 3, 4)]
    assert all(isinstance(failed.error, InternalError) for failed in found.failed)
    assert len(found.done) == 3


def test_the_same_error_again_and_again_is_no_pictures(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 9)
    runner = Weak(*range(2, 9), text="the GPU has fallen off the bus")
    with pytest.raises(InternalError, match="fallen off the bus"):
        restored(runner, tmp_path / "in", to=tmp_path / "out")
    assert runner.count == 2 + REPEATED
    found = restored(Doubling(), tmp_path / "in", to=tmp_path / "out", resume=True)
    assert (len(found.skipped), len(found.done)) == (2, 7)


def assert_ends_and_resumes(tmp_path: Path, message: str, before: Any = None) -> None:
    """A run that ends says why once, counts, and goes on later."""
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=message) as caught:
        restored(Doubling(), tmp_path / "in", to=out)
    assert re.search(r"with \d+ of 30 pictures looked at", caught.value.what)
    assert "--resume" in caught.value.fix
    if before is not None:
        before()
    found = restored(Doubling(), tmp_path / "in", to=out, resume=True)
    assert len(found.done) + len(found.skipped) == 30 and not found.failed
    for result in (*found.done, *found.skipped):
        assert_doubled(result.source, result.output)
    assert not list(out.glob("*.tmp"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_the_run(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "in", 30)
    replace, calls = Path.replace, []

    def full(path: Path, target: Path) -> Any:
        calls.append(target)
        if len(calls) > 10:
            raise OSError(code, os.strerror(code))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    assert_ends_and_resumes(tmp_path, os.strerror(code), before=monkeypatch.undo)
    assert len(calls) <= 14  # not once for every picture that was left


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 30)
    (tmp_path / "out").mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path / "out")]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("nothing can be mounted here")

    mount("size=64k")
    try:
        assert_ends_and_resumes(tmp_path, "No space left", before=lambda: mount("remount,size=4m"))
    finally:
        subprocess.run(["umount", str(tmp_path / "out")], check=True)


def test_a_vanished_output_folder_ends_the_run(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 30)

    class Removing(Doubling):
        def run(self, images: Any) -> Any:
            if self.count == 9:
                (tmp_path / "out").rename(tmp_path / "elsewhere")
            return super().run(images)

    runner = Removing()
    with pytest.raises(OutputError, match=r"(no folder|No such file|is gone).*That ends the run"):
        restored(runner, tmp_path / "in", to=tmp_path / "out")
    assert runner.count < 20
    assert not (tmp_path / "out").exists()
    assert len(restored(Doubling(), tmp_path / "in", to=tmp_path / "out", resume=True).done) == 30


def test_an_interrupt_leaves_whole_files_only(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 20)

    class Interrupted(Doubling):
        def run(self, images: Any) -> Any:
            if self.count == 8:
                raise KeyboardInterrupt
            return super().run(images)

    with pytest.raises(KeyboardInterrupt):
        restored(Interrupted(), tmp_path / "in", to=tmp_path / "out")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read_", "write_"))]
    for name in contents(tmp_path / "out"):
        assert_doubled(tmp_path / "in" / name, tmp_path / "out" / name)
    found = restored(Doubling(), tmp_path / "in", to=tmp_path / "out", resume=True)
    assert len(found.skipped) >= 5 and len(found.done) + len(found.skipped) == 20


# ---- what is said before the first picture ----


def test_a_disk_too_small_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "in", 3)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(EnvironmentProblem, match="3 restored pictures take at least"):
        restored(runner := Doubling(), tmp_path / "in", to=tmp_path / "out")
    assert runner.count == 0


def test_what_is_done_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "in", 3)
    restored(Doubling(), tmp_path / "in", to=tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert len(restored(Doubling(), tmp_path / "in", to=tmp_path / "out", resume=True).skipped) == 3


def test_a_log_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 2)
    with pytest.raises(OutputError, match="Cannot write the log"):
        restored(runner := Doubling(), tmp_path / "in", to=tmp_path / "out", log=tmp_path / "none" / "log")
    assert runner.count == 0


def test_errors_travel_whole() -> None:
    import pickle

    for error in (ImageError("What.", why="Why.", fix="Fix."), InternalError("What.", fix="Fix.")):
        again: AgileIRError = pickle.loads(pickle.dumps(error))
        assert (type(again), again.to_json()) == (type(error), error.to_json())
