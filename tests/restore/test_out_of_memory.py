"""Errors that mean too little memory, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agileir_export.engines.tensorrt.device_memory import OutOfDeviceMemory
from agileir_export.errors import InputError
from agileir_export.restore import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfDeviceMemory("a buffer", "The GPU"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... bad allocation"),
        RuntimeError("Failed to allocate memory for requested buffer of size 1"),
    ],
    ids=repr,
)
def test_too_little_memory(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), InputError("Failed to allocate"), KeyboardInterrupt()], ids=repr
)
def test_other_errors(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_what_pytorch_and_numpy_raise() -> None:
    for allocate in (lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.ones(2**60, np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
