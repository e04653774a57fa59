"""Device memory from PyCUDA: engines run without PyTorch. It has no CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EnvironmentProblem, InputError
from .device_memory import Block, CaptureFailed, OutOfDeviceMemory

__all__ = ["PycudaMemory"]


class PycudaMemory:
    """See `DeviceMemory`.

    TensorRT works in the GPU's primary context, so this retains that one, as ``pycuda.autoprimaryctx`` does. A context
    of its own, as ``pycuda.autoinit`` makes it, would have addresses and streams that TensorRT cannot use. Nothing is
    left on a thread's context stack between calls.

    Args:
        device: Number of the GPU.

    Raises:
        ImportError: PyCUDA is not installed, or does not fit the driver.
        EnvironmentProblem: PyCUDA reaches no GPU.
        InputError: There is no such GPU.
    """

    captures = False

    def __init__(self, device: int = 0) -> None:
        import pycuda.driver as cuda

        self._cuda = cuda
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise EnvironmentProblem(f"PyCUDA reaches no GPU: {error}.") from error
        if not 0 <= device < count:
            raise InputError(f"There is no GPU {device}: PyCUDA sees {count}.")
        self._device = cuda.Device(device)
        self._context = self._device.retain_primary_context()
        with self.current():
            self._stream = cuda.Stream()

    @property
    def stream(self) -> int:
        """See `DeviceMemory.stream`."""
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `DeviceMemory.current`."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, nbytes: int) -> Block:
        """See `DeviceMemory.allocate`; the driver's allocations are aligned to 256 bytes."""
        try:
            allocation = self._cuda.mem_alloc(nbytes)
        except self._cuda.MemoryError as error:
            raise OutOfDeviceMemory(f"{nbytes:,} bytes", str(self.describe()["device"]), f"{error}.") from error
        return Block(int(allocation), nbytes, allocation)

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """See `DeviceMemory.allocate_host`."""
        try:
            host: NDArray[np.uint8] = self._cuda.pagelocked_empty(nbytes, np.uint8)
        except self._cuda.MemoryError as error:
            raise OutOfDeviceMemory(f"{nbytes:,} bytes of page-locked memory", "The machine", f"{error}.") from error
        return host

    def free_bytes(self) -> int:
        """See `DeviceMemory.free_bytes`."""
        return int(self._cuda.mem_get_info()[0])

    def upload(self, block: Block, host: NDArray[Any]) -> None:
        """See `DeviceMemory.upload`."""
        self._cuda.memcpy_htod_async(block.address, host, self._stream)

    def download(self, host: NDArray[Any], block: Block) -> None:
        """See `DeviceMemory.download`."""
        self._cuda.memcpy_dtoh_async(host, block.address, self._stream)

    def synchronize(self) -> None:
        """See `DeviceMemory.synchronize`."""
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """See `DeviceMemory.capture`: there is none."""
        del enqueue
        raise CaptureFailed("PyCUDA has no CUDA graphs")

    def describe(self) -> dict[str, Any]:
        """See `DeviceMemory.describe`."""
        major, minor = self._device.compute_capability()
        return {"memory": "pycuda", "device": self._device.name(), "compute_capability": f"{major}.{minor}"}
