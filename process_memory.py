"""This process's memory (Linux): what the system tells of it, and how the C library keeps it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

__all__ = ["ADDRESSES", "PEAK", "RESIDENT", "give_back_large_blocks", "process_memory", "restart_peak"]

RESIDENT, PEAK, ADDRESSES = "VmRSS", "VmHWM", "VmSize"
"""Memory held now, the most ever held, and the address space in use."""

MMAP_THRESHOLD, LARGE_BLOCK = -3, 1 << 20
"""``M_MMAP_THRESHOLD`` of glibc's ``malloc.h``, and its value in bytes."""


def process_memory(name: str) -> int | None:
    """An amount of memory of this process, in bytes; None where the system does not tell.

    ``resource.ru_maxrss`` would be no peak of this process: it counts the parent's memory from before exec, too.

    Args:
        name: `RESIDENT`, `PEAK` or `ADDRESSES`.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024 if name in lines else None


def restart_peak() -> None:
    """Lets `PEAK` begin anew from what is held now; where that is forbidden, the old one goes on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def give_back_large_blocks() -> None:
    """Lets glibc give every block of 1 MiB or more back to the system when it is freed, for the whole process.

    By itself it raises that limit to 32 MiB as such blocks are freed, and then keeps them in a heap with gaps: PyTorch
    then takes half as much again for a picture as its tensors hold, and how much depends on what ran before. A limit in
    the environment (``MALLOC_MMAP_THRESHOLD_``) stays. Elsewhere than on Linux nothing happens.
    """
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
