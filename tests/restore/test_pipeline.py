"""Reading, running and writing overlap, keep to their room, and tell how far they are."""

from __future__ import annotations

import re
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

import agileir_export.restore.pipeline as pipeline
from agileir_export.restore import FolderOptions, plan_outputs, restore_pictures, restore_planned

from .small_folders import Doubling, make_pictures


def test_pictures_are_read_ahead_and_written_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner begins with the second picture although the first cannot be written yet, which it waits for."""
    make_pictures(tmp_path / "in", 3)
    second, write = threading.Event(), pipeline.write_picture

    class Telling(Doubling):
        def run(self, images: Any) -> Any:
            if self.count == 1:
                second.set()
            return super().run(images)

    def waiting(path: Path, *arguments: Any) -> None:
        assert second.wait(60)
        write(path, *arguments)

    monkeypatch.setattr(pipeline, "write_picture", waiting)
    assert len(restore_pictures(Telling(), [tmp_path / "in"], tmp_path / "out").done) == 3


def test_pictures_that_wait_keep_to_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no room beside the one in work, a picture is read after the one before it is written."""
    make_pictures(tmp_path / "in", 4)
    order: list[str] = []
    read, write = pipeline.read_picture, pipeline.write_picture

    def reading(path: Path, spec: Any) -> Any:
        order.append(f"read {path.stem}")
        return read(path, spec)

    def writing(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        order.append(f"written {path.stem}")

    monkeypatch.setattr(pipeline, "read_picture", reading)
    monkeypatch.setattr(pipeline, "write_picture", writing)
    plan = plan_outputs([tmp_path / "in"], tmp_path / "out")
    assert len(restore_planned(Doubling(), plan, memory=0).done) == 4
    assert order == [f"{step} {number}" for number in range(4) for step in ("read", "written")]


def test_a_picture_is_let_go_of_before_its_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The room for the file is what the picture leaves, of the last one and of those that others follow."""
    make_pictures(tmp_path / "in", 3)
    pixels: list[weakref.ref[Any]] = []
    gone: list[bool] = []
    read, write = pipeline.read_picture, pipeline.write_picture

    def reading(path: Path, spec: Any) -> Any:
        picture = read(path, spec)
        pixels.append(weakref.ref(picture.pixels))
        return picture

    def writing(path: Path, *arguments: Any) -> None:
        until = time.monotonic() + 10
        while pixels[len(gone)]() is not None and time.monotonic() < until:  # the runner's thread is on its way
            time.sleep(0.01)
        gone.append(pixels[len(gone)]() is None)
        write(path, *arguments)

    monkeypatch.setattr(pipeline, "read_picture", reading)
    monkeypatch.setattr(pipeline, "write_picture", writing)
    restore_planned(Doubling(), plan_outputs([tmp_path / "in"], tmp_path / "out"), memory=0)
    assert gone == [True] * 3


def test_progress_tells_rate_and_time_left(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 8)
    told: list[str] = []
    plan = plan_outputs([tmp_path / "in"], tmp_path / "out", FolderOptions())
    restore_planned(Doubling(), plan, lambda step, done=0, total=0, /: told.append(step), memory=0)
    assert told[0] == "0.png (1 of 8)"
    assert re.fullmatch(r"7\.png \(8 of 8\), [\d.e+]+ pictures/s, 0:00:\d\d left", told[-1])
