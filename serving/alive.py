"""A file by which a process is known to live: it holds a lock on it, which ends with the process, however that ends."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Sign", "has_gone", "sign_path", "told"]

FOLDER = "AGILEIR_EXPORT_SERVE_FOLDER"
"""The variable by which a model's process learns in which folder to give signs."""


def sign_path(folder: str | Path, generation: int) -> Path:
    """The file of a model that was written for the so manieth time."""
    return Path(folder, f"alive-{generation}")


class Sign:
    """This process's sign of life, until its end.

    Args:
        path: The file, in a folder that is there.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(self._file, 0)

    def tell(self, facts: dict[str, Any]) -> None:
        """Writes what others may want to know, once."""
        os.write(self._file, json.dumps(facts).encode() + b"\n")


def has_gone(path: Path) -> bool:
    """Whether a process that has told something lives no more."""
    if told(path) is None:
        return False
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def told(path: Path) -> dict[str, Any] | None:
    """What a process told; None where it has not yet."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    if not text.endswith(b"\n"):
        return None
    facts: dict[str, Any] = json.loads(text)
    return facts
