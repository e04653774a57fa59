"""What a benchmark's JSON says of where and with what it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from agileir_export.cache import processor_name

__all__ = ["surroundings"]


def surroundings(packages: Iterable[str]) -> dict[str, Any]:
    """Date, processor, cores, Python, and the versions of packages."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
