"""A stand-in for ``torch`` on a `fake_cuda.Gpu`: what the adapter of device memory uses of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from .fake_cuda import Gpu


class OutOfMemoryError(RuntimeError):
    pass


class Tensor:
    """Bytes of the device or of the host; copies between them wait for the stream."""

    def __init__(self, values: Any, gpu: Gpu, allocation: Any = None) -> None:
        self._values, self._gpu, self._allocation = values, gpu, allocation

    def __getitem__(self, part: slice) -> Tensor:
        return Tensor(self._values[part], self._gpu, self._allocation)

    def data_ptr(self) -> int:
        return int(self._values.ctypes.data)

    def numpy(self) -> Any:
        assert self._allocation is None, "a tensor of the device"
        return self._values

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Tensor:
        assert non_blocking
        assert self._gpu.streams, "copies are queued on the stream that is current"
        assert (self._allocation is None) != (src._allocation is None)
        to, start = self._values, src._values
        assert to.dtype == start.dtype == np.uint8
        assert to.shape == start.shape
        self._gpu.stream.queue(lambda: np.copyto(to, start))
        return self


def module(gpu: Gpu, available: bool = True) -> Any:
    """The module ``torch`` with its part ``torch.cuda``."""

    class Stream:
        def __init__(self, device: int) -> None:
            assert device == 0
            self.cuda_stream = gpu.stream.handle

        def synchronize(self) -> None:
            gpu.stream.synchronize()

    class CUDAGraph:
        def __init__(self) -> None:
            self._work: list[Any] = []

        def replay(self) -> None:
            assert gpu.streams
            gpu.stream.waiting.extend(self._work)

    @contextlib.contextmanager
    def stream(stream: Stream) -> Iterator[None]:
        gpu.streams.append(stream)
        try:
            yield
        finally:
            gpu.streams.pop()

    @contextlib.contextmanager
    def device(device: int) -> Iterator[None]:
        assert device == 0
        gpu.current += 1
        try:
            yield
        finally:
            gpu.current -= 1

    @contextlib.contextmanager
    def graph(cuda_graph: CUDAGraph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode in ("global", "thread_local", "relaxed")
        with gpu.stream.record() as cuda_graph._work:
            yield

    def empty(size: int, *, dtype: Any, device: str = "cpu", pin_memory: bool = False) -> Tensor:
        assert dtype is np.uint8
        if device == "cpu":
            assert pin_memory, "copies would wait"
            if size > gpu.limit:
                raise RuntimeError("CUDA error: out of memory")
            return Tensor(np.empty(size, np.uint8), gpu)
        assert device == "cuda:0"
        assert gpu.streams, "memory belongs to the stream that is current when it is made"
        allocation = gpu.allocate(size)
        if allocation is None:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return Tensor(allocation.bytes, gpu, allocation)

    cuda = SimpleNamespace(
        is_available=lambda: available,
        device_count=lambda: 1,
        get_device_capability=lambda device: (8, 9),
        mem_get_info=lambda device: (gpu.limit - gpu.used, gpu.limit),
        get_device_name=lambda device: "Torch on NumPy",
        Stream=Stream,
        CUDAGraph=CUDAGraph,
        stream=stream,
        device=device,
        graph=graph,
    )
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda="13.0"),
        uint8=np.uint8,
        OutOfMemoryError=OutOfMemoryError,
        empty=empty,
        from_numpy=lambda array: Tensor(array, gpu),
        cuda=cuda,
    )
