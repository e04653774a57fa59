"""The logger that TensorRT and TensorRT-RTX write to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ERRORS", "make_logger"]

ERRORS = ("INTERNAL_ERROR", "ERROR")
"""Severities of messages that say why a call failed."""


def make_logger(trt: Any, sink: Callable[[str, str], None]) -> Any:
    """A logger of the target that hands every message on.

    A process needs exactly one: TensorRT keeps the first it sees.

    Args:
        trt: The target's module.
        sink: Receives the severity's name (``"ERROR"``, ``"VERBOSE"``, ...) and the message.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is not known to mypy
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            sink(severity.name, message)

    return Logger()
