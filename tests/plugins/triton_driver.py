"""A stand-in of the driver that Triton's own launcher starts kernels with."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import GPUTarget

STREAM = 77

DEVICES = {90: 99, 80: 98}
"""Number of the device by compute capability (times ten). Triton keeps what it compiled by device: on a machine with a
GPU nothing else must meet these."""


class Driver:
    """Stands for the CUDA driver of an H100, or of another GPU: takes binaries, and notes what is started."""

    def __init__(self, capability: int = 90) -> None:
        self.capability = capability
        self.loaded: list[tuple[str, bytes, int]] = []
        self.started: list[tuple[Any, ...]] = []
        self.utils = self
        self.launcher_cls = lambda source, metadata: lambda *arguments: self.started.append(arguments)

    def get_current_device(self) -> int:
        return DEVICES[self.capability]

    def get_current_stream(self, device: int) -> int:
        assert device == DEVICES[self.capability]
        return STREAM

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 * 1024, "max_num_regs": 65536, "multiprocessor_count": 132, "warpSize": 32}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        self.loaded.append((name, binary, shared))
        module, function, registers, spills, threads = 1, 2, 128, 0, 1024
        return module, function, registers, spills, threads
