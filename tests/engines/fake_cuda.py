"""A GPU made of NumPy arrays, whose stream works when it is waited for: device memory for tests.

What is queued runs at `synchronize`, as late as CUDA may run it, so that host memory that is touched too early shows in
the results. Addresses are real, and looked up: what was given back is not found.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from agileir_export.engines.tensorrt.device_memory import Block, CaptureFailed, OutOfDeviceMemory

ALIGNMENT = 256


class Stream:
    """Work in order."""

    def __init__(self, handle: int = 7001) -> None:
        self.handle = handle
        self.waiting: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None

    def queue(self, work: Callable[[], None]) -> None:
        (self.waiting if self.recording is None else self.recording).append(work)

    def synchronize(self) -> None:
        assert self.recording is None, "a stream that is captured cannot be waited for"
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    @contextmanager
    def record(self) -> Iterator[list[Callable[[], None]]]:
        assert self.recording is None
        recorded: list[Callable[[], None]] = []
        self.recording = recorded
        try:
            yield recorded
        finally:
            self.recording = None


class Allocation:
    """Aligned bytes with a real address."""

    def __init__(self, nbytes: int) -> None:
        raw = np.full(nbytes + ALIGNMENT, 0xAB, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.bytes = raw[start : start + nbytes]
        self.address = int(self.bytes.ctypes.data)


class Gpu:
    """All memory of the device."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.stream = Stream()
        self.current = 0
        self.streams: list[object] = []
        self.live: weakref.WeakValueDictionary[int, Allocation] = weakref.WeakValueDictionary()
        self.allocations: list[int] = []
        self.peak = 0

    @property
    def used(self) -> int:
        return sum(len(allocation.bytes) for allocation in self.live.values())

    def allocate(self, nbytes: int) -> Allocation | None:
        """None where there is not as much."""
        assert self.current, "the GPU's context is not current"
        if self.used + nbytes > self.limit:
            return None
        allocation = Allocation(nbytes)
        self.live[allocation.address] = allocation
        self.allocations.append(nbytes)
        self.peak = max(self.peak, self.used)
        return allocation

    def at(self, address: int, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes at an address of the device that is in use."""
        allocation = self.live.get(address)
        assert allocation is not None, f"nothing is allocated at {address:#x}"
        assert nbytes <= len(allocation.bytes), f"{nbytes} bytes asked of an allocation of {len(allocation.bytes)}"
        return allocation.bytes[:nbytes]


class NumpyMemory:
    """A `DeviceMemory` on a `Gpu`."""

    def __init__(self, gpu: Gpu, captures: bool = True, refuses_capture: bool = False) -> None:
        self.gpu, self.captures, self.refuses_capture = gpu, captures, refuses_capture
        self.recorded = self.replayed = 0

    @property
    def stream(self) -> int:
        return self.gpu.stream.handle

    @contextmanager
    def current(self) -> Iterator[None]:
        self.gpu.current += 1
        try:
            yield
        finally:
            self.gpu.current -= 1

    def allocate(self, nbytes: int) -> Block:
        allocation = self.gpu.allocate(nbytes)
        if allocation is None:
            raise OutOfDeviceMemory(f"{nbytes:,} bytes", "NumPy")
        return Block(allocation.address, nbytes, allocation)

    def allocate_host(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        assert self.gpu.current
        return np.full(nbytes, 0xCD, np.uint8)

    def free_bytes(self) -> int:
        return self.gpu.limit - self.gpu.used

    def upload(self, block: Block, host: np.ndarray[Any, Any]) -> None:
        assert self.gpu.current
        source = host.reshape(-1).view(np.uint8)
        self.gpu.stream.queue(lambda: np.copyto(self.gpu.at(block.address, source.nbytes), source))

    def download(self, host: np.ndarray[Any, Any], block: Block) -> None:
        assert self.gpu.current
        target = host.reshape(-1).view(np.uint8)
        assert np.shares_memory(target, host)
        self.gpu.stream.queue(lambda: np.copyto(target, self.gpu.at(block.address, target.nbytes)))

    def synchronize(self) -> None:
        assert self.gpu.current
        self.gpu.stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        assert self.gpu.current
        assert self.captures
        if self.refuses_capture:
            raise CaptureFailed("operation not permitted when stream is capturing")
        with self.gpu.stream.record() as recorded:
            enqueue()
        self.recorded += 1

        def replay() -> None:
            assert self.gpu.current
            self.replayed += 1
            for work in recorded:
                self.gpu.stream.queue(work)

        return replay

    def describe(self) -> dict[str, Any]:
        return {"memory": "numpy", "device": "NumPy", "compute_capability": "8.9"}
