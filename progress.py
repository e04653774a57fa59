"""How long work tells what it does."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "entitled", "silent"]


class Progress(Protocol):
    """Called as work goes on."""

    def __call__(self, step: str, done: int = 0, total: int = 0, /) -> None:
        """Tells a step.

        Args:
            step: What is being done, in a few words.
            done: How many parts of it are.
            total: Of how many; 0 where that is not known.
        """


def silent(step: str, done: int = 0, total: int = 0, /) -> None:
    """The `Progress` of who does not want to know."""


def entitled(progress: Progress, title: str) -> Progress:
    """A `Progress` whose steps are told after a title."""
    return lambda step, done=0, total=0, /: progress(f"{title}: {step}", done, total)
