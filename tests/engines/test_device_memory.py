"""The adapters of device memory, on stand-ins for PyTorch's CUDA part and for PyCUDA, and the choice between them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agileir_export.engines import TensorRTRunner
from agileir_export.engines.opening import open_runner
from agileir_export.engines.tensorrt import torch_memory
from agileir_export.engines.tensorrt.device_memory import (
    ADAPTERS,
    Buffer,
    CaptureFailed,
    OutOfDeviceMemory,
    open_memory,
)
from agileir_export.engines.tensorrt.pycuda_memory import PycudaMemory
from agileir_export.engines.tensorrt.torch_memory import TorchMemory
from agileir_export.errors import EnvironmentProblem, InputError
from agileir_export.models import LoadOptions

from ..export import networks
from ..scripts import run_python
from . import fake_pycuda, fake_torch
from .fake_cuda import Gpu, NumpyMemory
from .fake_engines import doubled, here, profile, write_engine
from .fake_tensorrt import Module

FREE = profile((1, 4, 4), (4, 32, 32))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A device that both PyTorch and PyCUDA see."""
    device = Gpu()
    put_torch_on(device, monkeypatch)
    put_pycuda_on(device, monkeypatch)
    return device


def put_torch_on(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, available: bool = True) -> None:
    monkeypatch.setattr(torch_memory, "torch", fake_torch.module(gpu, available))


def put_pycuda_on(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    package: Any = ModuleType("pycuda")
    package.driver = fake_pycuda.driver(gpu, **options)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)


@pytest.fixture(params=["torch", "pycuda", "numpy"])
def memory(request: pytest.FixtureRequest, gpu: Gpu) -> Any:
    """Every adapter, and the tests' own, which must behave as they do."""
    if request.param == "numpy":
        return NumpyMemory(gpu)
    return open_memory(request.param)


# ---- what all of them do ----


def test_what_goes_up_comes_down(memory: Any, gpu: Gpu) -> None:
    assert gpu.current == 0
    with memory.current():
        block, host = memory.allocate(4096), memory.allocate_host(4096)
        assert block.nbytes == host.nbytes == 4096
        assert block.address % 256 == 0
        values = host[:96].view(np.float32).reshape(2, 3, 4)
        values[:] = np.arange(24).reshape(2, 3, 4)
        memory.upload(block, values)
        back = memory.allocate_host(96).view(np.float32).reshape(2, 3, 4)
        memory.download(back, block)
        memory.synchronize()
        np.testing.assert_array_equal(back, values)
    assert gpu.current == 0
    assert memory.stream == gpu.stream.handle != 0
    assert set(memory.describe()) == {"memory", "device", "compute_capability"}
    assert memory.describe()["compute_capability"] == "8.9"
    del block
    assert gpu.used == 0


def test_a_lack_of_memory_is_named(memory: Any, gpu: Gpu) -> None:
    gpu.limit = 1000
    with memory.current(), pytest.raises(OutOfDeviceMemory, match=r"no memory left for 5,000 bytes"):
        memory.allocate(5000)


@pytest.mark.parametrize("name", ["torch", "pycuda"])
def test_a_lack_of_page_locked_memory_is_named(name: str, gpu: Gpu) -> None:
    memory, gpu.limit = open_memory(name), 1000
    with memory.current(), pytest.raises(OutOfDeviceMemory, match="5,000 bytes of page-locked memory"):
        memory.allocate_host(5000)


def test_a_recording_repeats_what_was_queued(memory: Any, gpu: Gpu) -> None:
    calls: list[int] = []

    def enqueue() -> None:
        gpu.stream.queue(lambda: calls.append(1))

    with memory.current():
        if not memory.captures:
            with pytest.raises(CaptureFailed, match="no CUDA graphs"):
                memory.capture(enqueue)
            return
        replay = memory.capture(enqueue)
        memory.synchronize()
        assert calls == []
        replay()
        replay()
        memory.synchronize()
    assert calls == [1, 1]


def test_a_recording_that_fails(gpu: Gpu) -> None:
    memory = TorchMemory()

    def refuses() -> None:
        raise CaptureFailed("TensorRT refuses")

    with memory.current(), pytest.raises(CaptureFailed, match="TensorRT refuses"):
        memory.capture(refuses)
    assert gpu.stream.recording is None


@pytest.mark.parametrize("name", ["torch", "pycuda"])
def test_an_engine_runs_on_it(name: str, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = Module(gpu, doubled)
    here(monkeypatch, module)
    with TensorRTRunner(write_engine(tmp_path, [FREE]), name) as runner:
        for shape in ((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8), (5, 3, 9, 30), (1, 3, 8, 8)):
            images = networks.images(*shape, seed=sum(shape))
            np.testing.assert_array_equal(runner.run(images), doubled(images))
        assert module.events.count("capture") == (1 if name == "torch" else 0)
        assert runner.describe()["memory"] == name
    assert gpu.used == 0
    assert gpu.current == 0


def test_a_buffer_gives_back_before_it_grows(gpu: Gpu) -> None:
    memory = NumpyMemory(gpu)
    gpu.limit = 1000
    with memory.current():
        buffer = Buffer(memory, host=True)
        first = buffer.reserve(600).address
        assert buffer.reserve(500).address == first
        assert buffer.host((5, 25)).shape == (5, 25)
        assert buffer.reserve(900).nbytes == 900
        with pytest.raises(OutOfDeviceMemory):
            buffer.reserve(1100)
        assert gpu.used == 0
        assert buffer.reserve(0).nbytes == 1


# ---- the choice ----


def test_pytorch_is_taken_first(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_memory(), TorchMemory)
    put_torch_on(gpu, monkeypatch, available=False)
    assert isinstance(open_memory(), PycudaMemory)


def test_neither(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    put_torch_on(gpu, monkeypatch, available=False)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EnvironmentProblem, match="through torch or pycuda") as caught:
        open_memory()
    for words in ("PyTorch 2.13.0 was built for CUDA 13.0", "reaches no GPU", "pycuda cannot be imported"):
        assert words in caught.value.why
    assert "pip install pycuda" in caught.value.fix
    put_pycuda_on(gpu, monkeypatch, broken="no CUDA-capable device is detected")
    with pytest.raises(EnvironmentProblem) as caught:
        open_memory("pycuda")
    assert "no CUDA-capable device" in caught.value.why
    assert "torch" not in caught.value.what


def test_wrong_names_and_numbers(gpu: Gpu) -> None:
    with pytest.raises(InputError, match="'cupy' is no kind of device memory") as caught:
        open_memory("cupy")
    assert all(name in caught.value.fix for name in ADAPTERS)
    for name in ADAPTERS:
        for number in (-1, 1):
            with pytest.raises(InputError, match=f"There is no GPU {number}"):
                open_memory(name, number)


def test_the_module_pycuda_is_imported_only_when_it_is_used() -> None:
    program = """
import sys
from agileir_export.engines import TensorRTRunner, opening
import agileir_export.engines.tensorrt.pycuda_memory
print(sorted({"torch", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "pycuda", "triton"} & set(sys.modules)))
"""
    answer = run_python("-c", program)
    assert answer.stdout.strip() == "[]"


# ---- opening by name ----


def test_engine_files_open_with_this_runner(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here(monkeypatch, Module(gpu, doubled))
    path = write_engine(tmp_path, [FREE])
    runner = open_runner(path, LoadOptions(attention="paper"))
    assert isinstance(runner, TensorRTRunner)
    with pytest.raises(InputError, match="--top-k was decided at export"):
        open_runner(path, LoadOptions(top_k=64))
    with pytest.raises(InputError, match="does not exist"):
        open_runner(tmp_path / "missing.engine")
