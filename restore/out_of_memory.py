"""Recognising that memory ran out, whoever says so."""

from __future__ import annotations

from ..engines.tensorrt.device_memory import OutOfDeviceMemory
from ..errors import AgileIRError

__all__ = ["is_out_of_memory"]

SIGNS = ("alloc", "out of memory", "not enough memory")
"""Of PyTorch "DefaultCPUAllocator: can't allocate memory" and "CUDA out of memory", of ONNX Runtime "Failed to allocate
memory for requested buffer" and "bad allocation"; lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a runner means that there was too little memory, so that a smaller tile may go through.

    PyTorch raises `RuntimeError`, ONNX Runtime classes that share no base but `Exception`: their texts decide.
    """
    if isinstance(error, MemoryError | OutOfDeviceMemory):
        return True
    if isinstance(error, AgileIRError) or not isinstance(error, Exception):
        return False
    text = str(error).lower()
    return any(sign in text for sign in SIGNS)
