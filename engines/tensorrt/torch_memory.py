"""Device memory from PyTorch, with CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import EnvironmentProblem, InputError
from .device_memory import Block, CaptureFailed, OutOfDeviceMemory

__all__ = ["TorchMemory"]


class TorchMemory:
    """See `DeviceMemory`. Memory comes from PyTorch's caching allocators; the context is the primary one.

    Args:
        device: Number of the GPU.

    Raises:
        EnvironmentProblem: PyTorch reaches no GPU.
        InputError: There is no such GPU.
    """

    captures = True

    def __init__(self, device: int = 0) -> None:
        if not torch.cuda.is_available():
            kind = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
            raise EnvironmentProblem(f"PyTorch {torch.__version__} {kind} and reaches no GPU.")
        if not 0 <= device < torch.cuda.device_count():
            raise InputError(f"There is no GPU {device}: PyTorch sees {torch.cuda.device_count()}.")
        self._device = device
        self._stream = torch.cuda.Stream(device)

    @property
    def stream(self) -> int:
        """See `DeviceMemory.stream`."""
        return int(self._stream.cuda_stream)

    def current(self) -> AbstractContextManager[Any]:
        """See `DeviceMemory.current`."""
        return torch.cuda.device(self._device)

    def allocate(self, nbytes: int) -> Block:
        """See `DeviceMemory.allocate`; the allocator's blocks are aligned to 512 bytes."""
        try:
            with torch.cuda.stream(self._stream):  # the memory then belongs to this stream
                tensor = torch.empty(nbytes, dtype=torch.uint8, device=f"cuda:{self._device}")
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(f"{nbytes:,} bytes", str(self.describe()["device"]), str(error)) from error
        return Block(tensor.data_ptr(), nbytes, tensor)

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """See `DeviceMemory.allocate_host`."""
        try:
            host: NDArray[np.uint8] = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        except RuntimeError as error:
            raise OutOfDeviceMemory(f"{nbytes:,} bytes of page-locked memory", "The machine", str(error)) from error
        return host

    def free_bytes(self) -> int:
        """See `DeviceMemory.free_bytes`."""
        return int(torch.cuda.mem_get_info(self._device)[0])

    def upload(self, block: Block, host: NDArray[Any]) -> None:
        """See `DeviceMemory.upload`."""
        with torch.cuda.stream(self._stream):
            block.owner[: host.nbytes].copy_(_bytes(host), non_blocking=True)

    def download(self, host: NDArray[Any], block: Block) -> None:
        """See `DeviceMemory.download`."""
        with torch.cuda.stream(self._stream):
            _bytes(host).copy_(block.owner[: host.nbytes], non_blocking=True)

    def synchronize(self) -> None:
        """See `DeviceMemory.synchronize`."""
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """See `DeviceMemory.capture`. Other threads may go on allocating meanwhile."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                enqueue()
        except RuntimeError as error:  # PyTorch's CUDA errors, and `CaptureFailed` from `enqueue`
            raise CaptureFailed(str(error)) from error

        def replay() -> None:
            with torch.cuda.stream(self._stream):
                graph.replay()

        return replay

    def describe(self) -> dict[str, Any]:
        """See `DeviceMemory.describe`."""
        major, minor = torch.cuda.get_device_capability(self._device)
        return {
            "memory": "torch",
            "device": torch.cuda.get_device_name(self._device),
            "compute_capability": f"{major}.{minor}",
        }


def _bytes(host: NDArray[Any]) -> torch.Tensor:
    """The same memory as a tensor of bytes; copies of page-locked memory do not wait."""
    return torch.from_numpy(host.reshape(-1).view(np.uint8))
