"""Whether ONNX Runtime multiplies INT8 matrices right on this processor."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["CPU_FACTS", "IN_FLOAT", "wrong_products"]

WRONG = ((1, 21), (1, 25))
"""First release whose INT8 products are wrong where the processor has AMX, and the first that is right again: products
of 60 and 180 columns were off by more than their greatest value under 1.21.0, 1.21.1, 1.22.1, 1.23.0, 1.23.2, 1.24.1
and 1.24.4, twice in other ways, and exact under 1.20.1 and from 1.25.0 to 1.32.0 (one Intel Xeon, Linux)."""

IN_FLOAT = ("session.disable_quant_qdq", "1")
"""Entry of a session's configuration that has quantised layers computed in float32: right, and slower."""

CPU_FACTS = Path("/proc/cpuinfo")


def wrong_products(version: str) -> bool:
    """Whether a release's INT8 products are wrong here. Only on Linux does it use AMX.

    Args:
        version: The release, such as ``1.23.2``.
    """
    release = tuple(int(part) for part in version.split(".")[:2])
    return WRONG[0] <= release < WRONG[1] and _has_amx()


@cache
def _has_amx() -> bool:
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any("amx_int8" in line.split() for line in facts.splitlines() if line.startswith("flags"))
