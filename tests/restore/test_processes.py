"""Several processes fed from one desk: all is done once, whoever dies. Here they run on the CPU."""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import EnvironmentProblem, ImageError, InputError, OutputError, Unsupported
from agileir_export.export import OnnxArtifact
from agileir_export.images.files import Image, write_image
from agileir_export.restore import (
    DeviceRunner,
    FolderOptions,
    Restoration,
    plan_outputs,
    restore_on_devices,
    restore_pictures,
)
from agileir_export.restore.devices import find_devices
from agileir_export.restore.journal import JOURNAL
from agileir_export.restore.processes import AT_ONCE, Place, restore_in_processes
from agileir_export.restore.worker import Order

from .small_folders import BROKEN, contents, make_pictures, spoil


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `small_folders` under a name by which other processes find it, too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("small_folders")


def restored(opener: Any, source: Path, output: Path, processes: int = 2, **options: Any) -> Restoration:
    plan = plan_outputs([source], output, FolderOptions(**options))
    places = [Place(f"process {number}", {"OMP_NUM_THREADS": "1"}) for number in range(processes)]
    return restore_in_processes(Order(opener, processes), places, plan)[0]


def test_a_folder_in_two_processes(tmp_path: Path, swinir: OnnxArtifact) -> None:
    files = make_pictures(tmp_path / "in", 24)
    bad = {spoil(files[3 * number], kind) for number, kind in enumerate(BROKEN)}
    opener = partial(OnnxRuntimeRunner, swinir.path, 1)
    found = restored(opener, tmp_path / "in", tmp_path / "two", recursive=True)
    assert {failed.source for failed in found.failed} == bad
    assert all(isinstance(failed.error, ImageError) for failed in found.failed)
    restore_pictures(opener(), tmp_path / "in", tmp_path / "one", recursive=True, tile="off")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    again = restored(opener, tmp_path / "in", tmp_path / "two", recursive=True, resume=True)
    assert (len(again.done), len(again.skipped), len(again.failed)) == (0, 24 - len(bad), len(bad))


def test_a_killed_process_loses_nothing(tmp_path: Path, there: Any, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path / "in", 30)
    found = restored(partial(there.DyingOnce, str(tmp_path / "pids"), 0.01), tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "died").exists()
    assert len(found.done) == 30 and not found.failed
    expected = restore_pictures(there.Doubling(), tmp_path / "in", tmp_path / "straight")
    assert len(expected.done) == 30
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    lines = [json.loads(line) for line in (tmp_path / "out" / JOURNAL).read_bytes().splitlines()]
    assert set(Counter(line["done"] for line in lines if "done" in line).values()) == {1}
    assert "another takes its place" in caplog.text
    begun = sum(len(path.read_text().splitlines()) for path in (tmp_path / "pids").iterdir())
    assert 31 <= begun <= 30 + AT_ONCE  # the one that was in work, and those that may have been


def test_a_picture_that_kills_is_named(tmp_path: Path, there: Any) -> None:
    """The pictures beside it in the process are restored all the same."""
    make_pictures(tmp_path / "in", 12)
    write_image(tmp_path / "in" / "5.png", Image(np.zeros((3, 16, 16), np.float32)), overwrite=True)
    found = restored(there.Dying, tmp_path / "in", tmp_path / "out")
    (failed,) = found.failed
    assert failed.source.name == "5.png"
    assert "2 processes died of it, the last with status -9" in failed.error.what
    assert len(found.done) == 11


def test_what_ends_a_run_ends_all(tmp_path: Path, there: Any) -> None:
    make_pictures(tmp_path / "in", 60)
    opener = partial(there.Removing, str(tmp_path / "out"), 5)
    with pytest.raises(OutputError, match="That ends the run"):
        restored(opener, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_opener_is_raised(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 2)
    with pytest.raises(InputError, match=r"none\.onnx"):
        restored(partial(OnnxRuntimeRunner, str(tmp_path / "none.onnx")), tmp_path / "in", tmp_path / "out")
    with pytest.raises(EnvironmentProblem, match="process 0 ended with status 3 while it loaded"):
        restored(partial(os._exit, 3), tmp_path / "in", tmp_path / "out")


def test_a_process_has_few_pictures_at_once(tmp_path: Path, there: Any) -> None:
    """Both have part in the work, for none is given all of it."""
    make_pictures(tmp_path / "in", 20)
    found = restored(partial(there.Signing, str(tmp_path / "pids"), 0.02), tmp_path / "in", tmp_path / "out")
    assert len(found.done) == 20
    counts = [len(path.read_text().splitlines()) for path in (tmp_path / "pids").iterdir()]
    assert sum(counts) == 20 and len(counts) == 2 and min(counts) >= AT_ONCE


# ---- which GPUs ----


class Cuda:
    """As PyTorch speaks of two GPUs."""

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def device_count() -> int:
        return 2


def test_places_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "cuda", Cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_devices(None) == [Place(f"GPU {n}", {"CUDA_VISIBLE_DEVICES": f"{n}"}) for n in (0, 1)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-uuid")
    assert find_devices([1]) == [Place("GPU 1", {"CUDA_VISIBLE_DEVICES": "GPU-uuid"})]
    for numbers in ([2], [0, 0]):
        with pytest.raises(InputError, match="cannot be taken"):
            find_devices(numbers)


def test_a_cpu_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make_pictures(tmp_path / "in", 1)
    plan = plan_outputs([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(EnvironmentProblem, match="There is no GPU"):
        restore_on_devices(DeviceRunner("agileir_tiny_x2"), None, plan)
    with pytest.raises(Unsupported, match="ONNX Runtime on the CPU"):
        restore_on_devices(DeviceRunner("a.onnx"), [0], plan)
