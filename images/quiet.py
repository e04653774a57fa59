"""Keeping warnings of other libraries quiet in one thread, while pictures are read and written in several."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["quietly"]


class _QuietThreads(threading.local):
    """Stands in a warning filter where others have a pattern of module names: it matches in threads that are quiet."""

    quiet = False

    def match(self, module: str) -> bool:
        """Whether the warning is one of a quiet thread."""
        del module
        return self.quiet


_THREADS = _QuietThreads()
_FILTER: Any = ("ignore", None, Warning, _THREADS, 0)


@contextmanager
def quietly() -> Iterator[None]:
    """No warning of this thread is shown while the block runs.

    `warnings.catch_warnings` replaces the filters of all threads: two that overlap could leave them changed for good,
    and would swallow what a third one warns of.
    """
    filters: Any = warnings.filters
    if not filters or filters[0] is not _FILTER:
        filters.insert(0, _FILTER)
    former, _THREADS.quiet = _THREADS.quiet, True
    try:
        yield
    finally:
        _THREADS.quiet = former
