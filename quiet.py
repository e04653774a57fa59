"""Libraries that talk too much."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet(logger: str = "") -> Iterator[None]:
    """Keeps off the screen what a library prints, warns of and logs below the level of an error.

    Args:
        logger: Name of the logger; the root's where empty.
    """
    told = logging.getLogger(logger)
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        told.setLevel(level)
