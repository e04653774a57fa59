"""Contexts, buffers and CUDA graphs of the TensorRT runner, on a stand-in that checks the order of calls."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.engines.tensorrt.execution import MOST_CONTEXTS
from agileir_export.engines.tensorrt.runner import TensorRTRunner
from agileir_export.errors import EnvironmentProblem, InputError, InternalError

from ..export import networks
from .fake_cuda import Gpu, NumpyMemory
from .fake_engines import doubled, here, open_engine, profile, write_engine
from .fake_tensorrt import CudaGraphStrategy, ExecutionContextAllocationStrategy, Module

FREE = profile((1, 4, 4), (4, 64, 64))

Opened = tuple[TensorRTRunner, NumpyMemory, Module]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Opened]:
    def build(rtx: bool = False, **options: Any) -> Opened:
        module = Module(Gpu(), doubled, rtx=rtx, version="1.7.1.116" if rtx else "11.4.0.106")
        here(monkeypatch, module)
        target = "rtx" if rtx else "tensorrt"
        path = write_engine(tmp_path, [FREE], target=target, built_with=module.__version__)
        return *open_engine(path, module, **options), module

    return build


def check(runner: TensorRTRunner, *shape: int, seed: int = 0, times: int = 1) -> None:
    """Other pictures every time."""
    for number in range(seed, seed + times):
        images = networks.images(*shape, seed=number)
        np.testing.assert_array_equal(runner.run(images), doubled(images))


# ---- graphs ----


def test_the_second_execution_of_a_shape_is_captured(opened: Callable[..., Opened]) -> None:
    runner, memory, module = opened()
    check(runner, 2, 3, 8, 12, times=5)
    assert module.events == ["create", "execute", "capture"]
    assert (memory.recorded, memory.replayed) == (1, 4)
    check(runner, 2, 3, 8, 8)
    assert module.events[3:] == ["create", "execute"]


def test_graphs_are_captured_again_when_a_buffer_grew(opened: Callable[..., Opened]) -> None:
    """A graph holds addresses; the stand-in finds nothing at an address that was given back."""
    runner, memory, module = opened()
    check(runner, 1, 3, 8, 8, times=3)
    check(runner, 1, 3, 32, 32)
    check(runner, 1, 3, 8, 8, times=3)
    assert module.events == ["create", "execute", "capture", "create", "execute", "execute", "capture"]
    assert (memory.recorded, memory.replayed) == (2, 4)


def test_graphs_of_several_shapes_live_side_by_side(opened: Callable[..., Opened]) -> None:
    runner, memory, _ = opened()
    shapes = [(1, 3, 16, 16), (2, 3, 8, 8), (1, 3, 4, 20)]
    for seed in range(4):
        for shape in shapes:
            check(runner, *shape, seed=seed)
    assert (memory.recorded, memory.replayed) == (3, 9)


def test_a_network_that_cannot_be_captured_runs_plainly(opened: Callable[..., Opened]) -> None:
    runner, memory, module = opened(refuses_capture=True)
    check(runner, 1, 3, 8, 8, times=4)
    assert module.events == ["create", *["execute"] * 4]
    assert memory.replayed == 0
    assert runner.describe()["cuda_graphs"].startswith("not capturable: operation not permitted")


@pytest.mark.parametrize(
    ("options", "described"),
    [({"cuda_graphs": False}, "off"), ({"captures": False}, "not with this memory")],
    ids=["off", "memory"],
)
def test_without_graphs(options: dict[str, Any], described: str, opened: Callable[..., Opened]) -> None:
    runner, _, module = opened(**options)
    check(runner, 1, 3, 8, 8, times=3)
    assert module.events == ["create", *["execute"] * 3]
    assert runner.describe()["cuda_graphs"] == described


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_rtx_makes_its_own_graphs(cuda_graphs: bool, opened: Callable[..., Opened]) -> None:
    runner, memory, module = opened(rtx=True, cuda_graphs=cuda_graphs)
    check(runner, 1, 3, 8, 8, times=3)
    check(runner, 1, 3, 8, 12)
    assert memory.recorded == 0
    assert module.events == ["create", *["execute"] * 3, "create", "execute"]
    first, second = runner._engine.configs
    assert first is second, "one configuration, so that contexts share the cache of kernels"
    assert first.cache is not None
    assert first.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
    wanted = CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if cuda_graphs else CudaGraphStrategy.DISABLED
    assert first.cuda_graph_strategy is wanted
    assert runner.describe()["cuda_graphs"] == ("built-in" if cuda_graphs else "off")


# ---- contexts ----


def test_contexts_are_bounded_and_keep_their_shape(opened: Callable[..., Opened]) -> None:
    """The stand-in refuses a second shape in one context: that leaks memory in TensorRT 11.1 and 11.2."""
    runner, _, module = opened()
    widths = range(4, 65, 4)
    assert len(widths) > MOST_CONTEXTS
    for width in widths:
        check(runner, 1, 3, 4, width)
        assert len(module.contexts) <= MOST_CONTEXTS
    created = module.events.count("create")
    check(runner, 1, 3, 4, widths[-1])
    check(runner, 1, 3, 4, widths[-MOST_CONTEXTS])
    assert module.events.count("create") == created
    check(runner, 1, 3, 4, widths[0])
    assert module.events.count("create") == created + 1
    check(runner, 1, 3, 4, widths[-1])  # used since, so it was not the one that had to go
    assert module.events.count("create") == created + 1


# ---- buffers ----


def test_buffers_are_reused_and_only_grow(opened: Callable[..., Opened]) -> None:
    runner, memory, _ = opened()
    gpu = memory.gpu
    check(runner, 2, 3, 32, 32)
    made = len(gpu.allocations)
    assert made == 3
    for shape in ((2, 3, 32, 32), (1, 3, 32, 32), (4, 3, 16, 32), (1, 3, 4, 4)):
        check(runner, *shape)
    assert len(gpu.allocations) == made
    check(runner, 2, 3, 32, 36)
    assert len(gpu.allocations) == 2 * made
    image = 2 * 3 * 32 * 36 * 4
    scratch = 16 * 2 * 32 * 36
    assert gpu.used == image + 4 * image + scratch, "the smaller buffers were given back"


def test_working_memory_is_what_the_shape_needs_once_for_all_contexts(opened: Callable[..., Opened]) -> None:
    runner, memory, module = opened()
    module.scratch_per_pixel = 1000
    for size in (64, 8, 16, 32):
        check(runner, 1, 3, size, size)
    assert len(module.contexts) == 4
    assert memory.gpu.used == 1000 * 64 * 64 + (1 + 4) * 4 * 3 * 64 * 64


def test_a_network_without_working_memory(opened: Callable[..., Opened]) -> None:
    runner, _, module = opened()
    module.scratch_per_pixel = 0
    check(runner, 1, 3, 8, 8, times=3)


# ---- failures ----


def test_too_large_for_the_gpu(opened: Callable[..., Opened]) -> None:
    """Afterwards the runner goes on with what fits."""
    runner, memory, _ = opened()
    memory.gpu.limit = 100_000
    check(runner, 1, 3, 8, 8, times=3)
    with pytest.raises(EnvironmentProblem, match=r"NumPy has no memory left for 49,152 bytes") as caught:
        runner.run(networks.images(1, 3, 64, 64))
    assert "smaller tiles" in caught.value.fix
    check(runner, 1, 3, 8, 8, times=3)
    assert memory.gpu.peak <= 100_000


def test_no_memory_for_a_context(opened: Callable[..., Opened]) -> None:
    runner, _, module = opened()
    module.no_context = True
    message = "no memory left for TensorRT to create an execution context"
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        runner.run(networks.images(1, 3, 8, 8))
    assert "Requested size was 123 bytes" in caught.value.why
    module.no_context = False
    check(runner, 1, 3, 8, 8)


def test_an_execution_that_fails(opened: Callable[..., Opened]) -> None:
    runner, _, module = opened()
    check(runner, 1, 3, 8, 8)
    module.no_execution = True
    with pytest.raises(InternalError, match="illegal memory access") as caught:
        runner.run(networks.images(1, 3, 12, 8))
    assert "did not execute" in caught.value.what
    module.no_execution = False
    check(runner, 1, 3, 12, 8)


# ---- life ----


def test_closing_gives_everything_back(opened: Callable[..., Opened]) -> None:
    runner, memory, module = opened()
    with runner as same:
        assert same is runner
        check(runner, 1, 3, 8, 8, times=3)
        check(runner, 1, 3, 8, 12)
    gc.collect()
    assert memory.gpu.used == 0
    assert len(module.contexts) == 0
    runner.close()
    with pytest.raises(InputError, match=r"runner of .*model\.plan is closed"):
        runner.run(networks.images(1, 3, 8, 8))


def test_a_runner_that_is_dropped_gives_everything_back(opened: Callable[..., Opened]) -> None:
    runner, memory, module = opened()
    check(runner, 1, 3, 8, 8, times=3)
    del runner
    gc.collect()
    assert memory.gpu.used == 0
    assert len(module.contexts) == 0


def test_threads_wait_for_each_other(opened: Callable[..., Opened]) -> None:
    runner, _, _ = opened()
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(20):
                check(runner, 1, 3, 4 + 4 * (number % 3), 8 + 4 * seed, seed=100 * seed + number)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
