"""The NVIDIA driver and its GPUs, asked through ctypes: no framework is imported.

Functions and constants are those of the CUDA driver API (cuda.h). Every failure becomes a sentence
in `Gpu.why_not`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..json_form import JsonForm

__all__ = ["Device", "Gpu", "probe_gpu"]

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""`CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `..._MINOR`."""


@dataclass(frozen=True)
class Device(JsonForm):
    """One GPU as the driver reports it."""

    index: int
    name: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Gpu(JsonForm):
    """The driver and its devices.

    Attributes:
        cuda: Highest CUDA version the driver supports, as (major, minor); None without a driver.
        devices: The GPUs that this process may use.
        why_not: Why there is no device; empty when there is one.
    """

    cuda: tuple[int, int] | None = None
    devices: tuple[Device, ...] = ()
    why_not: str = ""


def probe_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """Find the driver and the GPUs that this process may use. Never raises.

    Args:
        load: Opens a shared library by name; OSError means that it is not there.
    """
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = load(library)
    except OSError:
        return Gpu(why_not=f"no NVIDIA driver: its library {library} is not on this machine")
    try:
        return _ask_driver(cuda)
    except AttributeError as missing:
        return Gpu(why_not=f"{library} is not a usable CUDA driver: {missing}")


def _ask_driver(cuda: Any) -> Gpu:
    number = ctypes.c_int()
    version = None
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and number.value > 0:
        version = (number.value // 1000, number.value % 1000 // 10)
    if status := cuda.cuInit(0):
        return Gpu(version, why_not=f"the CUDA driver does not start: {_reason(cuda, status)}")
    if status := cuda.cuDeviceGetCount(ctypes.byref(number)):
        return Gpu(version, why_not=f"the driver cannot count GPUs: {_reason(cuda, status)}")
    answers = (_ask_device(cuda, index) for index in range(number.value))
    devices = tuple(device for device in answers if device is not None)
    return Gpu(version, devices, "" if devices else "the NVIDIA driver works but shows no GPU")


def _ask_device(cuda: Any, index: int) -> Device | None:
    """One device, or None where the driver does not answer for it."""
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    failed = (
        cuda.cuDeviceGet(ctypes.byref(handle), index)
        or cuda.cuDeviceGetName(name, len(name), handle)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, handle)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, handle)
    )
    if failed:
        return None
    return Device(index, name.value.decode("utf-8", "replace"), (major.value, minor.value))


def _reason(cuda: Any, status: int) -> str:
    text = ctypes.c_char_p()
    if cuda.cuGetErrorString(status, ctypes.byref(text)) == 0 and text.value:
        reason = f"{text.value.decode()} (CUDA error {status})"
    else:
        reason = f"CUDA error {status}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return reason if hidden is None else f"{reason}; CUDA_VISIBLE_DEVICES is {hidden!r}"
