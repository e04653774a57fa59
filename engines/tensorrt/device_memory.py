"""Device memory as the TensorRT runner needs it: a small protocol, buffers that only grow, the choice of an adapter.

TensorRT takes addresses and a stream. Who allocates and copies is exchangeable: PyTorch where it is installed, or
PyCUDA, with which an engine runs on a machine without PyTorch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import EnvironmentProblem, InputError

__all__ = [
    "ADAPTERS",
    "Block",
    "Buffer",
    "CaptureFailed",
    "DeviceMemory",
    "OutOfDeviceMemory",
    "open_memory",
]

ADAPTERS = {"torch": (".torch_memory", "TorchMemory"), "pycuda": (".pycuda_memory", "PycudaMemory")}
"""Module and class of every adapter by name, the preferred one first. The class takes the number of the GPU."""


class CaptureFailed(RuntimeError):
    """The work cannot be captured into a CUDA graph. The runner catches it and goes on without graphs."""


class OutOfDeviceMemory(EnvironmentProblem):
    """No room for a buffer, an engine or its working memory on the GPU, or for page-locked memory on the host."""

    code = "environment.device-memory"

    def __init__(self, need: str, where: str, why: str = "") -> None:
        super().__init__(
            f"{where} has no memory left for {need}.",
            why=why,
            fix="Restore smaller tiles or a smaller batch, or end other programs that use the GPU.",
        )


@dataclass(frozen=True)
class Block:
    """Device memory; it is free when the last reference to the block has gone.

    Attributes:
        address: Where it begins, a multiple of 256 as TensorRT wants it.
        nbytes: Its length.
        owner: The adapter's object that holds it.
    """

    address: int
    nbytes: int
    owner: Any


class DeviceMemory(Protocol):
    """One GPU, its memory, and one stream on it, on which everything below is ordered.

    Except for `current` and `describe`, methods are called within `current` only.
    """

    @property
    def captures(self) -> bool:
        """Whether `capture` works."""

    @property
    def stream(self) -> int:
        """The stream's CUDA handle; never the default stream, which adds synchronisation."""

    def current(self) -> AbstractContextManager[Any]:
        """Makes the GPU's primary context the calling thread's, and restores what was there."""

    def allocate(self, nbytes: int) -> Block:
        """Device memory of at least one byte.

        Raises:
            OutOfDeviceMemory: There is not as much.
        """

    def allocate_host(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory ``[nbytes]``, which the GPU copies from and to without the processor.

        Raises:
            OutOfDeviceMemory: There is not as much.
        """

    def free_bytes(self) -> int:
        """Bytes of the GPU that are free now."""
        ...

    def upload(self, block: Block, host: NDArray[Any]) -> None:
        """Queues a copy to the GPU; `host` is contiguous, page-locked, and must not change before `synchronize`."""

    def download(self, host: NDArray[Any], block: Block) -> None:
        """Queues a copy from the GPU; `host` is contiguous, page-locked, and complete after `synchronize`."""

    def synchronize(self) -> None:
        """Waits for everything that was queued on the stream."""

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Records what `enqueue` queues on the stream, without doing it; the result queues all of that again.

        Addresses are part of the record.

        Raises:
            CaptureFailed: The adapter has no graphs, or something in `enqueue` cannot be recorded.
        """

    def describe(self) -> dict[str, Any]:
        """``memory`` (the adapter), ``device`` and ``compute_capability`` (such as ``"8.9"``)."""


class Buffer:
    """Device memory, and page-locked host memory beside it if wanted, that are reused and only grow.

    Args:
        memory: Where from.
        host: Whether there is host memory, too.
    """

    def __init__(self, memory: DeviceMemory, host: bool) -> None:
        self._memory = memory
        self._with_host = host
        self._block: Block | None = None
        self._host: NDArray[np.uint8] | None = None

    @property
    def block(self) -> Block:
        """The device memory, after `reserve`."""
        assert self._block is not None, "reserve() comes first"
        return self._block

    def reserve(self, nbytes: int) -> Block:
        """Makes room for `nbytes`; when it must grow, the address changes. Nothing may be queued that uses it.

        Raises:
            OutOfDeviceMemory: There is not as much; the old memory has been given back by then.
        """
        if self._block is None or self._block.nbytes < nbytes:
            self.clear()  # first, so that old and new are never held together
            block = self._memory.allocate(max(nbytes, 1))
            if self._with_host:
                self._host = self._memory.allocate_host(block.nbytes)
            self._block = block
        return self._block

    def clear(self) -> None:
        """Gives the memory back."""
        self._block = self._host = None

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The beginning of the host memory as a float32 array."""
        assert self._host is not None, "reserve() comes first"
        view: NDArray[np.float32] = self._host[: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
        return view


def open_memory(name: str | None = None, device: int = 0) -> DeviceMemory:
    """The adapter of a name, or the first that works here: PyTorch, else PyCUDA.

    Args:
        name: A key of `ADAPTERS`, or None.
        device: Number of the GPU among those this process sees.

    Raises:
        InputError: There is no such adapter, or no such GPU.
        EnvironmentProblem: The adapter cannot work here, or none can; it says why for each.
    """
    if name is not None and name not in ADAPTERS:
        raise InputError(f"{name!r} is no kind of device memory.", fix=f"Choose one of {', '.join(ADAPTERS)}.")
    reasons = {}
    for candidate in [name] if name else ADAPTERS:
        module, adapter = ADAPTERS[candidate]
        try:
            opened: DeviceMemory = getattr(importlib.import_module(module, __package__), adapter)(device)
            return opened
        except ImportError as error:
            reasons[candidate] = f"{candidate} cannot be imported: {error}."
        except EnvironmentProblem as problem:
            reasons[candidate] = str(problem)
    raise EnvironmentProblem(
        f"No GPU memory for TensorRT through {' or '.join(reasons)}.",
        why=" ".join(reasons.values()),
        fix="Install a CUDA build of PyTorch (its installation page has the command), or `pip install pycuda`, "
        "which needs the CUDA toolkit; `agileir-export doctor` says what is here.",
    )
