"""A stand-in for ``pycuda.driver`` on a `fake_cuda.Gpu`: what the adapter uses of it, with PyCUDA's rules on contexts.

Names, signatures and rules are those of PyCUDA's source (``src/wrapper/wrap_cudadrv.cpp`` of release 2026.1);
`tests/contract/` compares the names with it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from .fake_cuda import Gpu


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


class DeviceAllocation:
    def __init__(self, allocation: Any) -> None:
        self._allocation = allocation

    def __int__(self) -> int:
        return int(self._allocation.address)


class Context:
    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def push(self) -> None:
        self._gpu.current += 1

    def pop(self) -> None:
        if not self._gpu.current:
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        self._gpu.current -= 1


def driver(gpu: Gpu, devices: int = 1, broken: str = "") -> ModuleType:
    """The module. With `broken`, it finds no device, for that reason."""
    module: Any = ModuleType("pycuda.driver")
    state = {"initialised": False}

    def init(flags: int = 0) -> None:
        if broken:
            raise LogicError(f"cuInit failed: {broken}")
        state["initialised"] = True

    class Device:
        def __init__(self, ordinal: int) -> None:
            assert state["initialised"]
            self._ordinal = ordinal

        @staticmethod
        def count() -> int:
            assert state["initialised"]
            return devices

        def name(self) -> str:
            return "PyCUDA on NumPy"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 9

        def retain_primary_context(self) -> Context:
            return Context(gpu)

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            assert gpu.current, "a stream is made in the current context"

        @property
        def handle(self) -> int:
            return gpu.stream.handle

        def synchronize(self) -> None:
            gpu.stream.synchronize()

    def mem_alloc(nbytes: int) -> DeviceAllocation:
        allocation = gpu.allocate(nbytes)
        if allocation is None:
            raise MemoryError("cuMemAlloc failed: out of memory")
        return DeviceAllocation(allocation)

    def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray[Any, Any]:
        assert gpu.current
        if shape > gpu.limit:
            raise MemoryError("cuMemHostAlloc failed: out of memory")
        return np.empty(shape, dtype, order)  # type: ignore[call-overload,no-any-return]

    def memcpy_htod_async(dest: int, src: np.ndarray[Any, Any], stream: Any = None) -> None:
        assert isinstance(stream, Stream)
        assert src.flags.c_contiguous
        source = src.reshape(-1).view(np.uint8)
        gpu.stream.queue(lambda: np.copyto(gpu.at(dest, source.nbytes), source))

    def memcpy_dtoh_async(dest: np.ndarray[Any, Any], src: int, stream: Any = None) -> None:
        assert isinstance(stream, Stream)
        assert dest.flags.c_contiguous
        target = dest.reshape(-1).view(np.uint8)
        gpu.stream.queue(lambda: np.copyto(target, gpu.at(src, target.nbytes)))

    def mem_get_info() -> tuple[int, int]:
        assert gpu.current
        return gpu.limit - gpu.used, gpu.limit

    contents = (
        Error,
        MemoryError,
        LogicError,
        DeviceAllocation,
        Context,
        Device,
        Stream,
        init,
        mem_alloc,
        mem_get_info,
    )
    for each in (*contents, pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async):
        setattr(module, each.__name__, each)
    return module  # type: ignore[no-any-return]
