"""A folder on a Ray cluster of this machine, with a worker that is killed on the way."""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.errors import EnvironmentProblem
from agileir_export.images.files import Image, write_image
from agileir_export.restore import FolderOptions, Restoration, plan_outputs, restore_pictures
from agileir_export.restore.cluster import restore_on_ray
from agileir_export.restore.journal import JOURNAL

from .small_folders import BROKEN, contents, make_pictures, spoil


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `small_folders` under a name by which the workers find it, too."""
    pytest.importorskip("ray.data", reason="pip install 'agileir-export[ray]'")
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", here)
    return importlib.import_module("small_folders")


def restored(opener: Any, source: Path, output: Path, **options: Any) -> Restoration:
    plan = plan_outputs([source], output, FolderOptions(**options))
    return restore_on_ray(opener, plan, workers=2)[0]


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed(tmp_path: Path, there: Any) -> None:
    files = make_pictures(tmp_path / "in", 200 + len(BROKEN))
    bad = {spoil(files[7 * number], kind) for number, kind in enumerate(BROKEN)}
    over, killed = threading.Event(), []

    def kill() -> None:
        """Ends one of the workers, once both have restored something."""
        pids = tmp_path / "pids"
        while not over.is_set() and not killed:
            names = sorted(path.name for path in pids.iterdir()) if pids.exists() else []
            if len(names) == 2:
                os.kill(int(names[0]), signal.SIGKILL)
                killed.append(names[0])
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        opener = partial(there.Signing, str(tmp_path / "pids"), 0.05)
        found = restored(opener, tmp_path / "in", tmp_path / "out", recursive=True)
    finally:
        over.set()
        thread.join()
    assert killed
    assert len(found.done) == 200
    assert {failed.source for failed in found.failed} == bad
    restore_pictures(there.Doubling(), tmp_path / "in", tmp_path / "straight", recursive=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    lines = [json.loads(line) for line in (tmp_path / "out" / JOURNAL).read_bytes().splitlines()]
    counts = Counter(line["done"] for line in lines if "done" in line)
    assert len(counts) == 200 and set(counts.values()) == {1}
    again = restored(opener, tmp_path / "in", tmp_path / "out", recursive=True, resume=True)
    assert (len(again.done), len(again.skipped), len(again.failed)) == (0, 200, len(bad))


@pytest.mark.slow
def test_a_picture_that_kills_is_named(tmp_path: Path, there: Any) -> None:
    make_pictures(tmp_path / "in", 12)
    write_image(tmp_path / "in" / "5.png", Image(np.zeros((3, 16, 16), np.float32)), overwrite=True)
    found = restored(there.Dying, tmp_path / "in", tmp_path / "out")
    (failed,) = found.failed
    assert failed.source.name == "5.png" and "3 workers of the cluster died of it" in failed.error.what
    assert len(found.done) == 11


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    make_pictures(tmp_path / "in", 1)
    plan = plan_outputs([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(EnvironmentProblem, match="Ray is not installed"):
        restore_on_ray(partial(dict), plan)
