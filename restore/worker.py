"""A process that restores pictures for another (`processes`): one runner, fed over a pipe.

Standard input brings pickles: first an `Order`, then `Work`. Answers are pickled tuples of a word and what belongs to
it: ``ready``, ``started``, ``finished``, ``warned``, and ``ended`` with an error. The end of the input ends it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from ..engines.runner import Runner
from ..errors import AgileIRError, InternalError
from .journal import runner_key
from .one_picture import Restored
from .pipeline import Failed, Work, pictures_room, restore_each

__all__ = ["Order", "main"]


@dataclass(frozen=True)
class Order:
    """What a process is for.

    Attributes:
        opener: Makes the runner.
        processes: How many share the memory.
    """

    opener: Callable[[], Runner]
    processes: int


class _Desk:
    """The `Desk` at the other end of the pipe."""

    def __init__(self, given: IO[bytes], answers: IO[bytes]) -> None:
        self._given, self._answers, self._lock = given, answers, threading.Lock()
        self._work: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def listen(self) -> None:
        """Takes in work until there is no more; the process ends then."""
        try:
            while True:
                self._work.put(pickle.load(self._given))
        except (EOFError, OSError, pickle.UnpicklingError):  # nobody is there any more who would read results
            os._exit(0)

    def tell(self, *answer: Any) -> None:
        with self._lock:
            pickle.dump(answer, self._answers)
            self._answers.flush()

    def take(self, wait: bool) -> Work | None:
        try:
            return self._work.get(block=wait)
        except queue.Empty:
            return None

    def started(self, work: Work) -> None:
        self.tell("started", work)

    def finished(self, result: Restored | Failed) -> None:
        self.tell("finished", result)


def main() -> None:
    """Opens the runner, and restores what comes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves nothing half-written
    given = os.fdopen(os.dup(sys.stdin.fileno()), "rb")  # the interpreter's end would wait for its own
    desk = _Desk(given, answers)
    warnings.showwarning = lambda message, *_: desk.tell("warned", str(message))
    try:
        order: Order = pickle.load(given)
        runner = order.opener()
        desk.tell("ready", runner_key(runner), runner.spec, runner.describe())
        threading.Thread(target=desk.listen, daemon=True).start()
        restore_each(runner, desk, pictures_room() // order.processes)
    except KeyboardInterrupt:
        return
    except AgileIRError as error:
        desk.tell("ended", error)
    except Exception as error:
        desk.tell("ended", InternalError(f"{type(error).__name__}: {error}", fix="This is a defect: please report it."))
