"""The model of peak memory: its fit, its cache, its budget, and one real prediction."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from agileir_export.cache import Cache
from agileir_export.engines import OnnxRuntimeRunner, Runner
from agileir_export.engines.opening import open_runner
from agileir_export.engines.openvino.loading import openvino_version
from agileir_export.engines.torch_runner import TorchRunner
from agileir_export.errors import EnvironmentProblem
from agileir_export.models import ModelSpec
from agileir_export.process_memory import LARGE_BLOCK, give_back_large_blocks
from agileir_export.restore import MemoryPlan, memory, memory_plan, peak_memory
from agileir_export.restore.memory import ERROR, SHARE, fit
from agileir_export.restore.peak_memory import Peak, measuring

from ..export import networks

MIB = 2**20
ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell how much a process holds")


@pytest.fixture
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds this file, and so `Holds`; behind all else, as the root's folders could hide packages."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])


def peaks(*sides: int, base: float = 0.0, slope: float = 0.0) -> list[Peak]:
    return [Peak(side * side, round(base + slope * side * side)) for side in sides]


class Holds:
    """A runner that holds 2000 bytes a pixel while it runs, and 20 MiB for ever after the first run."""

    def __init__(self) -> None:
        self.spec = ModelSpec("swinir", "custom", "denoising", 1, 3, window_size=8, pad_multiple=8)
        self.kept: Any = None

    def run(self, images: Any) -> Any:
        give_back_large_blocks()  # what the C library keeps would count
        if self.kept is None:
            self.kept = np.ones(20 * MIB, np.uint8)
        held = np.ones(2000 * images[:, 0].size, np.uint8)
        return images * held[0]

    def describe(self) -> dict[str, Any]:
        return {"target": "holds", "sha256": "0" * 64}


@pytest.mark.parametrize(("base", "slope"), [(0.0, 4000.0), (170e6, 2200.0), (1e6, 0.0)])
def test_a_line_is_found_again(base: float, slope: float) -> None:
    found = fit(peaks(64, 192, 384, base=base, slope=slope))
    assert found == pytest.approx((base, slope), rel=1e-3, abs=3)


def test_neither_part_is_negative() -> None:
    base, slope = fit([Peak(100, 100), Peak(1000, 1500)])
    assert base == 0
    assert 1.0 <= slope <= 1.5
    assert fit([Peak(100, 500), Peak(1000, 400)]) == (500.0, 0.0)


def test_one_size_is_enough() -> None:
    assert fit([Peak(1000, 5000)]) == (0.0, pytest.approx(5.0))


def test_large_and_small_weigh_the_same() -> None:
    """An arena that grows in steps is off by a share; the small run must not be drowned by the large one."""
    base, slope = fit([Peak(4096, 17_000_000), Peak(36864, 150_000_000), Peak(147456, 580_000_000)])
    for pixels, taken in ((4096, 17e6), (147456, 580e6)):
        assert base + slope * pixels == pytest.approx(taken, rel=0.05)


def test_prediction_counts_padded_pixels() -> None:
    plan = MemoryPlan(1000.0, 10.0, multiple=8, room=10**6)
    assert plan.predict(1, 9) == 1000 + 10 * 8 * 16
    assert plan.predict(8, 8, batch=3) == 1000 + 10 * 3 * 64


@pytest.mark.parametrize("room", [1_000, 50_000, 10**9])
@pytest.mark.parametrize("multiple", [8, 24])
def test_the_largest_tile_fits_and_no_larger_one_does(room: int, multiple: int) -> None:
    plan = MemoryPlan(10.0, 1.0, multiple=8, room=room)
    side = plan.largest_tile(multiple)
    assert side % multiple == 0
    assert plan.fits(side, side)
    assert not plan.fits(side + multiple, side + multiple)
    assert plan.predict(side, side) * ERROR <= room


def test_no_room_at_all_is_said() -> None:
    with pytest.raises(EnvironmentProblem, match="no memory for a tile of 8x8 pixels: it takes 2 MiB, and 1 MiB"):
        MemoryPlan(2.0 * MIB, 10.0, 8, MIB).largest_tile(8)


def test_a_budget_is_what_the_process_may_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_measure", lambda *_: peaks(64, slope=1000.0))
    monkeypatch.setattr(memory, "process_memory", lambda _: 300)
    monkeypatch.setattr(memory, "free_memory", lambda: 5000)
    assert memory_plan(Holds(), 1000, cache=Cache(tmp_path)).room == 700
    assert memory_plan(Holds(), cache=Cache(tmp_path)).room == 5000 * SHARE
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    with pytest.raises(EnvironmentProblem, match="how much memory is free"):
        memory_plan(Holds(), cache=Cache(tmp_path))


@linux
@pytest.mark.usefixtures("findable")
def test_a_child_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGER", (256,))
    said: list[str] = []
    plan = memory_plan(Holds(), 2**40, cache=Cache(tmp_path), progress=lambda step, *_: said.append(step))
    assert len(said) == 3
    assert plan.bytes_per_pixel == pytest.approx(2024, rel=0.05), "2000, and three float32 planes in and out"
    assert plan.base_bytes == pytest.approx(20 * MIB, abs=4 * MIB), "and what an allocator keeps beside"
    again = memory_plan(Holds(), 2**40, cache=Cache(tmp_path), progress=lambda step, *_: said.append(step))
    assert len(said) == 3, "it is in the cache"
    assert (again.base_bytes, again.bytes_per_pixel) == (plan.base_bytes, plan.bytes_per_pixel)


@linux
@pytest.mark.usefixtures("findable")
def test_what_cannot_be_measured_is_said() -> None:
    runner = Holds()
    runner.kept = lambda: 0
    with pytest.raises(EnvironmentProblem, match="sent to another process"), measuring(runner):
        pass
    with (
        measuring(Holds()) as measure,
        pytest.raises(EnvironmentProblem, match=r"64x64 pixels take cannot be measured\. ValueError"),
    ):
        measure(-1, 64, 64)


def test_a_static_file_is_asked_for_its_size(folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light", static=(16, 24))
    assert memory._taken(OnnxRuntimeRunner(artifact)) == [(1, 16, 24)]


def test_pytorch_on_a_gpu_is_asked_for_its_own_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a stand-in for `torch.cuda`."""
    runner = Holds()
    runner.device = "cuda:0"  # type: ignore[attr-defined]
    state = SimpleNamespace(peak=0)

    def run(images: Any) -> Any:
        state.peak = 1000 + 50 * images[:, 0].size
        return images

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: setattr(state, "peak", 1000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state.peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    plan = memory_plan(runner, cache=Cache(tmp_path))
    assert plan.bytes_per_pixel == pytest.approx(50)
    assert plan.room == 10**9 * SHARE
    assert memory_plan(runner, 5000, cache=Cache(tmp_path)).room == 4000


def test_structure_not_weights_tell_models_apart() -> None:
    one, same, other = (
        memory._facts(TorchRunner(networks.build("semanir", seed, **changes)))
        for seed, changes in ((0, {}), (1, {}), (0, {"top_k": 4}))
    )
    assert one == same
    assert one["network"] != other["network"] or one["spec"] != other["spec"]


@linux
def test_freed_blocks_go_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *given: calls.append(given))
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    give_back_large_blocks()
    assert calls == [(-3, LARGE_BLOCK)]
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    give_back_large_blocks()
    assert len(calls) == 1, "the user's own limit stays"


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "onnxruntime",
        pytest.param("openvino", marks=pytest.mark.skipif(not openvino_version(), reason="OpenVINO is not installed")),
        "torch",
    ],
)
def test_prediction_at_another_size(target: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LONGEST", 600.0)  # a busy machine would fit to smaller pictures than this one can
    runner: Runner = (
        TorchRunner(networks.shared("agileir"))
        if target == "torch"
        else open_runner(networks.exported(folder, "agileir").path, runtime=target)
    )
    plan = memory_plan(runner, cache=Cache(tmp_path))
    with measuring(runner) as measure:
        for rows, columns in ((300, 420), (640, 600)):
            assert plan.predict(rows, columns) == pytest.approx(measure(1, rows, columns).bytes, rel=0.15)


def test_measuring_is_left_to_the_engine() -> None:
    assert peak_memory.cuda_device(Holds()) is None
