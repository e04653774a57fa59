"""What a request to the picture model may cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..errors import EnvironmentProblem
from ..images.files import MAX_PIXELS
from ..json_form import JsonForm
from ..restore.free_memory import free_memory
from ..restore.pipeline import picture_bytes
from ..restore.tiled_runner import Room
from ..restore.wire import CodedError

__all__ = ["Limits", "RefusedRequest", "Waiting", "fitting_limits", "stop_check"]

LEAST_PIXELS = 2**18
"""A machine that has no room for a picture of so many pixels cannot serve."""


class RefusedRequest(Exception):
    """A request that is not done, with the error that its sender gets.

    Args:
        code: See `wire.CodedError`.
        text: What happened.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.coded = CodedError(code, text)


@dataclass(frozen=True)
class Limits(JsonForm):
    """Bounds of one request.

    Attributes:
        pixels: Rows times columns of a picture; 0 for what fits the memory.
        bytes: Of its file.
        seconds: From when it is taken up, and before that in the queue.
    """

    pixels: int = 0
    bytes: int = 2**28
    seconds: float = 300.0

    def check_bytes(self, count: int) -> None:
        """Refuses a file that is too large.

        Raises:
            RefusedRequest: It is.
        """
        if count > self.bytes:
            raise RefusedRequest("limit.bytes", f"The picture has {count} bytes, and {self.bytes} are taken at most.")


def fitting_limits(limits: Limits, room: Room, scale: int, multiple: int, budget: int | None = None) -> Limits:
    """The limits with a number of pixels: as many as fit beside the smallest tile, samples of 16 bits and PNG assumed.

    Args:
        limits: As asked for; a number of pixels that was asked for stays.
        room: What the memory holds (`PlannedRoom`).
        scale: Of the model.
        multiple: Sides of tiles are multiples of this (pixels).
        budget: Most bytes that this process may hold; None for all that is free.

    Raises:
        EnvironmentProblem: There is no room for `LEAST_PIXELS`.
    """
    if limits.pixels:
        return limits
    free = (free_memory() if budget is None else budget) or 0
    pixels = min(MAX_PIXELS, free // _beside(1, scale)) if free else MAX_PIXELS
    pixels = max(pixels, LEAST_PIXELS)
    while True:
        try:
            room.largest_tile(4 * multiple, _beside(pixels, scale))
            return replace(limits, pixels=pixels)
        except EnvironmentProblem:
            if pixels == LEAST_PIXELS:
                raise
            pixels = max(pixels // 2, LEAST_PIXELS)


def _beside(pixels: int, scale: int) -> int:
    """Bytes that a picture takes beside its tile: as it is read, restored, and twice as much again as it is packed."""
    return 3 * picture_bytes(pixels, scale)


class Waiting:
    """Memory for the pictures in work: one that alone takes more than there is has none beside it.

    Args:
        room: Bytes that they may hold together.
    """

    def __init__(self, room: int) -> None:
        self.room, self.held = room, 0
        self._changed = threading.Condition()

    @contextmanager
    def held_for(self, cost: int, stop: Callable[[], None]) -> Iterator[None]:
        """Waits until there is room for so many bytes, and keeps it while the block runs.

        Args:
            cost: Bytes.
            stop: Called while it waits; what it raises ends that.
        """
        with self._changed:
            while self.held and self.held + cost > self.room:
                stop()
                self._changed.wait(0.5)
            self.held += cost
        try:
            yield
        finally:
            with self._changed:
                self.held -= cost
                self._changed.notify_all()


def stop_check(seconds: float, cancelled: Callable[[], bool]) -> Callable[[], None]:
    """What a picture in work asks before every run of the network.

    Args:
        seconds: It may take from now on.
        cancelled: Whether its sender has gone.

    Returns:
        Raises `RefusedRequest` when the time is over or the sender gone.
    """
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise RefusedRequest("limit.time", f"The picture was not restored in {seconds:g} seconds.")
        if cancelled():
            raise RefusedRequest("cancelled", "The request was cancelled.")

    return check
