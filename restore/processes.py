"""Several processes, each with a runner of its own, fed from one desk: whoever is free takes the next picture."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EnvironmentProblem
from ..models.spec import ModelSpec
from ..progress import Progress, silent
from .files import Plan
from .folder import Restoration, restore_with
from .journal import remove_leftovers
from .pipeline import AHEAD, Desk, Failed, Work
from .worker import Order

__all__ = ["Place", "restore_in_processes"]

LOG = logging.getLogger(__name__)

AT_ONCE = AHEAD + 2
"""Pictures that a process has: one in the runner, one being written, and those read ahead."""

TRIES = 2
"""Processes that may die of a picture."""

PATIENCE = 30.0
"""Seconds in which a process must end that was told to."""


@dataclass(frozen=True)
class Place:
    """Where a process works.

    Attributes:
        name: What messages call it.
        environment: Variables that it gets beside those of this process.
    """

    name: str
    environment: Mapping[str, str]


def restore_in_processes(
    order: Order, places: Sequence[Place], plan: Plan, progress: Progress = silent
) -> tuple[Restoration, dict[str, Any]]:
    """Has a plan carried out by processes.

    Of a process that dies, what it had in work is given once more to whichever is free, one by one; another takes its
    place.

    Args:
        order: What each of them is for.
        places: Where each of them works.
        plan: What to restore.
        progress: Told each picture.

    Returns:
        What became of the pictures, and how the first runner describes itself.

    Raises:
        EnvironmentProblem: A process died before it was ready.
        AgileIRError: See `restore_pictures`.
    """
    crew = _Crew(order, places)
    try:
        key, spec, described = crew.ready()
        return restore_with(crew.serve, key, spec, plan, progress), described
    finally:
        crew.dismiss()


class _Process:
    """One process, and the pictures it has."""

    def __init__(self, order: Order, place: Place) -> None:
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__package__}.worker import main; main()"
        self.place, self.has = place, {}  # type: Place, dict[Path, Work]
        self.child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **place.environment},
            start_new_session=True,  # Ctrl-C reaches the parent only, which then ends it
        )
        with contextlib.suppress(BrokenPipeError):  # it died; the missing answer tells
            self.send(order)

    def send(self, given: Order | Work) -> None:
        assert self.child.stdin is not None
        pickle.dump(given, self.child.stdin)
        self.child.stdin.flush()

    def receive(self) -> tuple[Any, ...]:
        """The next answer.

        Raises:
            EOFError: The process is dead.
        """
        assert self.child.stdout is not None
        try:
            while (answer := pickle.load(self.child.stdout))[0] == "warned":
                LOG.warning("%s: %s", self.place.name, answer[1])
        except (OSError, pickle.UnpicklingError) as error:
            raise EOFError from error
        if answer[0] == "ended":
            raise answer[1]
        return tuple(answer)

    def ready(self) -> tuple[str, ModelSpec, dict[str, Any]]:
        """Key, spec and description of its runner.

        Raises:
            EnvironmentProblem: It died.
        """
        try:
            _, key, spec, described = self.receive()
        except EOFError:
            raise EnvironmentProblem(
                f"The process of {self.place.name} ended with status {self.child.wait()} while it loaded the model.",
                why="A status of -9 often means that the machine ran out of memory.",
            ) from None
        return key, spec, described

    def close(self) -> None:
        """Waits for its end, and forces it where that takes too long."""
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class _Crew:
    """The processes, each with a thread that speaks to it."""

    def __init__(self, order: Order, places: Sequence[Place]) -> None:
        self._order, self._lock = order, threading.Lock()
        self._error: BaseException | None = None
        self._again: list[Work] = []
        self._deaths: Counter[Path] = Counter()
        self._processes: list[_Process] = []
        for place in places:
            self._processes.append(_Process(order, place))

    def ready(self) -> tuple[str, ModelSpec, dict[str, Any]]:
        """Waits until all have their runners; what the first says of its own."""
        first, *_ = [process.ready() for process in self._processes]
        return first

    def serve(self, desk: Desk) -> None:
        """Restores all that the desk gives.

        Raises:
            AgileIRError: What ended the run.
        """
        threads = [threading.Thread(target=self._serve, args=(n, desk)) for n in range(len(self._processes))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._end(error)
            for thread in threads:
                thread.join()
            raise
        finally:
            if self._deaths:
                remove_leftovers({output.parent for output in self._deaths})
        if self._error is not None:
            raise self._error

    def dismiss(self) -> None:
        """Ends all processes."""
        for process in self._processes:
            process.close()

    def _serve(self, number: int, desk: Desk) -> None:
        """Keeps a place at work, whoever dies there."""
        try:
            while True:
                process = self._processes[number]
                try:
                    return self._feed(process, desk)
                except EOFError:
                    if self._error is not None:
                        return
                    process.close()
                    self._bury(process, desk)
                    with self._lock:
                        self._processes[number] = _Process(self._order, process.place)
                    self._processes[number].ready()
        except BaseException as error:  # raised by `serve`
            self._end(error)

    def _feed(self, process: _Process, desk: Desk) -> None:
        """Gives a process pictures, and takes results, until there is no more.

        Raises:
            EOFError: It died.
        """
        while True:
            while len(process.has) < AT_ONCE and (work := self._next(process, desk)) is not None:
                process.has[work.output] = work
                try:
                    process.send(work)
                except OSError:  # it died; what it told before is still to be read
                    break
            if not process.has:
                return
            word, told = process.receive()
            if word == "started":
                desk.started(told)
            else:
                del process.has[told.output]
                desk.finished(told)

    def _next(self, process: _Process, desk: Desk) -> Work | None:
        """The next picture for a process. One that another died of is given alone: no other suffers with it."""
        with self._lock:
            if self._error is not None or any(self._deaths[output] for output in process.has):
                return None
            work = desk.take(wait=False)
            if work is None and self._again and not process.has:
                work = self._again.pop()
            return work

    def _bury(self, process: _Process, desk: Desk) -> None:
        """Gives what a dead process had to another, or up."""
        status = process.child.returncode
        LOG.warning("The process of %s ended with status %s; another takes its place", process.place.name, status)
        for work in process.has.values():
            self._deaths[work.output] += 1
            if self._deaths[work.output] < TRIES:
                with self._lock:
                    self._again.append(dataclasses.replace(work, replace=True))  # it may be there already
                continue
            problem = EnvironmentProblem(
                f"{work.source} was not restored: {TRIES} processes died of it, the last with status {status}.",
                why="A status of -9 often means that the machine ran out of memory.",
                fix="Restore it alone, in smaller tiles (--tile).",
            )
            desk.finished(Failed(work.source, work.output, problem))

    def _end(self, error: BaseException) -> None:
        """Lets all processes end what they are at, and no more."""
        with self._lock:
            self._error = self._error or error
            for process in self._processes:
                process.child.terminate()
