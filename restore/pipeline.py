"""Pictures one after another, with those that come read ahead, and those that are restored written behind.

The runner works in the calling thread. Reading and writing leave Python for most of their time: threads do.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from errno import EDQUOT, EIO, ENODEV, ENOSPC, ENXIO, EROFS, ESTALE
from pathlib import Path
from typing import Protocol

from ..engines.runner import Runner
from ..errors import AgileIRError, InternalError, OutputError
from ..images.files import read_size
from .free_memory import free_memory
from .one_picture import Picture, Restored, read_picture, restore_picture, size_of, write_picture

__all__ = [
    "AHEAD",
    "Desk",
    "Failed",
    "Work",
    "as_typed",
    "of_the_place",
    "picture_bytes",
    "pictures_room",
    "restore_each",
]

AHEAD = 2
BEHIND = min(max((os.cpu_count() or 1) // 2, 2), 8)
"""Pictures that are read ahead, and written behind, at most. Compressing takes longer than anything but the network."""

SHARE, LEAST = 20, 2**28
"""Of the memory, the part (a twentieth) that pictures beside the one in the runner may hold; bytes where the system
does not tell how much there is."""

REPEATED = 3
"""Unexpected errors of the same text, one after another, that end a run: they are no picture's."""

NOT_THE_PICTURE = {ENOSPC, EDQUOT, EIO, ENODEV, ENXIO, EROFS, ESTALE}
"""Errors of writing that the next picture would meet, too: full, over quota, broken, gone, read-only."""


@dataclass(frozen=True)
class Work:
    """A picture to restore.

    Attributes:
        source: The picture.
        output: The file to write.
        replace: Whether a file of that name may be replaced.
    """

    source: Path
    output: Path
    replace: bool = False


@dataclass(frozen=True)
class Failed:
    """A picture that could not be restored.

    Attributes:
        source: The picture.
        output: The file that is missing therefore.
        error: Why.
    """

    source: Path
    output: Path
    error: AgileIRError


class Desk(Protocol):
    """Where work is taken, and results are handed in; from several threads."""

    def take(self, wait: bool) -> Work | None:
        """The next picture; None where there is none: now, or with `wait`, ever."""

    def started(self, work: Work) -> None:
        """The runner begins with a picture."""

    def finished(self, result: Restored | Failed) -> None:
        """A file stands complete under its name, or will not.

        Raises:
            AgileIRError: The run is to end.
        """


def pictures_room(budget: int | None = None) -> int:
    """Bytes that pictures which wait may hold, of a budget or of what is free."""
    memory = free_memory() if budget is None else budget
    return LEAST if memory is None else memory // SHARE


def restore_each(runner: Runner, desk: Desk, room: int) -> None:
    """Restores what a desk gives until there is no more.

    Args:
        runner: What restores.
        desk: Gives work and takes results.
        room: Bytes that pictures may hold beside the one in the runner; a picture that alone takes more has none beside
            it.

    Raises:
        OutputError: Nothing more can be written.
        AgileIRError: What the desk raises.
    """
    line = _Line(runner, desk, room)
    try:
        line.run()
    except BaseException:
        line.close(cancel=True)
        raise
    line.close()


@dataclass
class _Line:
    """The three stages, and what holds them together."""

    runner: Runner
    desk: Desk
    room: int
    held: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: list[BaseException] = field(default_factory=list)
    coming: deque[tuple[Work, int, Future[Picture]]] = field(default_factory=deque)
    unread: tuple[Work, int] | None = None
    unexpected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.readers = ThreadPoolExecutor(AHEAD, "read")
        self.writers = ThreadPoolExecutor(BEHIND, "write")
        self.behind = threading.Semaphore(BEHIND + 1)  # and the one in the runner

    def close(self, cancel: bool = False) -> None:
        """Waits for what is being read and written; raises what ended the run meanwhile, unless something else did."""
        for pool in (self.readers, self.writers):
            pool.shutdown(cancel_futures=cancel)
        if not cancel and self.ended:
            raise self.ended[0]

    def run(self) -> None:
        """Takes picture after picture through the runner."""
        while not self.ended:
            self._read_ahead(wait=True)
            if not self.coming:
                return
            work, cost, coming = self.coming.popleft()
            self._read_ahead(wait=False)
            self.behind.acquire()
            handed_on = False
            try:
                image = coming.result()
                if self.ended:
                    return
                self.desk.started(work)
                start = time.perf_counter()
                restored = restore_picture(self.runner, image, work.output)
                seconds = time.perf_counter() - start
                self.writers.submit(self._write, work, cost, size_of(image), restored, seconds)
                handed_on = True
                self.unexpected.clear()
                del image, restored, coming  # its file is written with the room that they leave
            except Exception as error:
                self.desk.finished(Failed(work.source, work.output, self._of_the_picture(error)))
            finally:
                if not handed_on:
                    self._give_back(cost)

    def _read_ahead(self, wait: bool) -> None:
        """Has pictures read while there is room; with `wait`, one at least, if there is any."""
        while len(self.coming) < AHEAD:
            if self.unread is None:
                work = self.desk.take(wait and not self.coming)
                if work is None:
                    return
                rows, columns = read_size(work.source) or (0, 0)  # where the file does not tell
                self.unread = work, picture_bytes(rows * columns, self.runner.spec.scale)
            work, cost = self.unread
            with self.changed:
                if wait and not self.coming:
                    self.changed.wait_for(lambda cost=cost: not self.held or self.held + cost <= self.room)  # type: ignore[misc]
                elif self.held + cost > self.room:
                    return
                self.held += cost
            self.coming.append((work, cost, self.readers.submit(read_picture, work.source, self.runner.spec)))
            self.unread = None

    def _write(self, work: Work, cost: int, size: tuple[int, int], restored: Picture, seconds: float) -> None:
        """Writes a restored picture, in a thread."""
        result: Restored | Failed
        try:
            try:
                write_picture(work.output, restored, work.replace)
                result = Restored(work.source, work.output, size, size_of(restored), seconds)
            except Exception as error:
                if of_the_place(error, work.output):
                    raise
                result = Failed(work.source, work.output, as_typed(error))
            del restored
            self.desk.finished(result)
        except BaseException as error:  # raised by `close`
            self.ended.append(error)
        finally:
            self._give_back(cost)

    def _give_back(self, cost: int) -> None:
        self.behind.release()
        with self.changed:
            self.held -= cost
            self.changed.notify_all()

    def _of_the_picture(self, error: Exception) -> AgileIRError:
        """A picture's error; raised instead where every picture meets it."""
        found = as_typed(error)
        if isinstance(found, InternalError):
            self.unexpected.append(found.what)
            if len(self.unexpected) >= REPEATED and len({*self.unexpected[-REPEATED:]}) == 1:
                raise found from error
        return found


def as_typed(error: Exception) -> AgileIRError:
    """An error as one of ours."""
    if isinstance(error, AgileIRError):
        return error
    typed = InternalError(
        f"{type(error).__name__}: {error}",
        fix="This is a defect of agileir-export or of the runtime. Restore this picture alone with --debug, and report "
        "what that shows.",
    )
    typed.__cause__ = error
    return typed


def of_the_place(error: Exception, output: Path) -> bool:
    """Whether writing failed for a reason that the next picture would meet, too."""
    if not isinstance(error, OutputError):
        return False
    return getattr(error.__cause__, "errno", None) in NOT_THE_PICTURE or not os.access(output.parent, os.W_OK | os.X_OK)


def picture_bytes(pixels: int, scale: int) -> int:
    """What a picture of so many pixels holds in float32, with alpha, and its restoration in 16 bits."""
    return pixels * 4 * (4 + 2 * scale * scale)
