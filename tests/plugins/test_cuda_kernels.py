"""Launches from several threads at once; the rest is tried behind the real binding (tests/contract)."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from agileir_export.errors import InternalError
from agileir_export.plugins.cuda_kernels import Driver
from agileir_export.plugins.kernel_records import CarriedKernel, KernelRecord

THREADS = 8

Status = Enum("Status", {"SUCCESS": 0, "CUDA_ERROR_OUT_OF_MEMORY": 2, "CUDA_ERROR_NO_BINARY_FOR_GPU": 209})


class Cuda:
    """The binding, for a GPU of 8.6 in whose threads different contexts are current; loading takes a while."""

    CUresult = SimpleNamespace(
        CUDA_ERROR_UNSUPPORTED_PTX_VERSION=None,
        CUDA_ERROR_NO_BINARY_FOR_GPU=Status.CUDA_ERROR_NO_BINARY_FOR_GPU,
        CUDA_ERROR_OUT_OF_MEMORY=Status.CUDA_ERROR_OUT_OF_MEMORY,
    )
    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=6
    )
    CUjit_option = SimpleNamespace(CU_JIT_ERROR_LOG_BUFFER=5, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES=6)

    def __init__(self) -> None:
        self.current = threading.local()
        self.loaded: list[int] = []
        self.launched: list[tuple[int, int]] = []
        self.fails: set[int] = set()

    def cuInit(self, flags: int) -> Any:
        return (Status.SUCCESS,)

    def cuCtxGetCurrent(self) -> Any:
        return Status.SUCCESS, self.current.context

    def cuCtxGetId(self, context: int) -> Any:
        return Status.SUCCESS, context

    def cuCtxGetDevice(self) -> Any:
        return Status.SUCCESS, 0

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> Any:
        return Status.SUCCESS, attribute

    def cuGetErrorString(self, status: Status) -> Any:
        return Status.SUCCESS, b"words"

    def cuModuleLoadDataEx(self, image: bytes, count: int, options: Any, values: Any) -> Any:
        time.sleep(0.02)
        if self.current.context in self.fails:
            return Status.CUDA_ERROR_NO_BINARY_FOR_GPU, None
        self.loaded.append(self.current.context)
        return Status.SUCCESS, self.current.context

    def cuModuleGetFunction(self, module: int, name: bytes) -> Any:
        return Status.SUCCESS, module

    def cuLaunchKernel(self, function: int, *numbers: Any) -> Any:
        self.launched.append((self.current.context, function))
        return (Status.SUCCESS,)


RECORD = KernelRecord(
    "layer", "ShiftedWindowAttention", {}, 2, (CarriedKernel(80, 1, "entry", 128, 0, 8, 3, 0, "the text"),)
)


def test_threads_load_a_kernel_once_for_every_context_and_launch_it_in_their_own() -> None:
    cuda = Cuda()
    driver = Driver(cuda)
    together = threading.Barrier(THREADS)

    def work(number: int) -> None:
        cuda.current.context = 1 + number % 2
        together.wait()
        for _ in range(5):
            driver.launch(RECORD, 1, (1, 8, 16), (11, 12, 13), 0, 7)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert sorted(cuda.loaded) == [1, 2]
    assert sorted(cuda.launched) == [(1, 1)] * 20 + [(2, 2)] * 20


def test_what_failed_to_load_is_tried_again_and_nothing_is_launched() -> None:
    cuda = Cuda()
    driver = Driver(cuda)
    cuda.current.context, cuda.fails = 5, {5}
    with pytest.raises(Exception, match=r"did not load the kernel of layer: words \(209\)"):
        driver.launch(RECORD, 1, (1, 8, 16), (11, 12, 13), 0, 7)
    assert cuda.launched == []
    cuda.fails.clear()
    driver.launch(RECORD, 1, (1, 8, 16), (11, 12, 13), 0, 7)
    assert cuda.launched == [(5, 5)]


def test_a_thread_without_a_context_is_told() -> None:
    cuda = Cuda()
    cuda.current.context = 0
    with pytest.raises(InternalError, match="No CUDA context is current"):
        Driver(cuda).prepare(RECORD, 1)
