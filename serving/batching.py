"""One runner for pictures that are in work at the same time: tiles of one size go through together."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engines.runner import Images, Runner
from ..models.spec import ModelSpec

__all__ = ["SharedRunner"]

LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    """Images that wait, and what becomes of them."""

    images: Images
    done: threading.Event = field(default_factory=threading.Event)
    result: Images | None = None
    error: BaseException | None = None


class SharedRunner:
    """A runner that many threads call, and that runs in threads of its own.

    What waits is run in the order in which it came; images that wait behind and have the size of the first go with it.

    Args:
        runner: What restores.
        together: Images at once at most.
        lanes: Threads that run; more than one for a runner that many may call.

    Attributes:
        shared: How many times images went together with others.
    """

    def __init__(self, runner: Runner, together: int = 1, lanes: int = 1) -> None:
        self.runner, self.together = runner, together
        self.shared = 0
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._local = threading.local()
        self._threads = [threading.Thread(target=self._work, name="network", daemon=True) for _ in range(lanes)]
        for thread in self._threads:
            thread.start()

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.runner.spec

    @property
    def artifact(self) -> Any:
        """The file that the runner inside runs, which says what sizes it takes; None for a model in PyTorch."""
        return getattr(self.runner, "artifact", None)

    @property
    def model(self) -> Any:
        """The network of a runner in PyTorch; else None."""
        return getattr(self.runner, "model", None)

    def describe(self) -> dict[str, Any]:
        """That of the runner inside."""
        return self.runner.describe()

    @contextmanager
    def asking(self, first: Callable[[], None]) -> Iterator[None]:
        """While the block runs, this thread calls a function before every run; what it raises ends its picture."""
        self._local.first = first
        try:
            yield
        finally:
            del self._local.first

    def run(self, images: Images) -> Images:
        """See `Runner.run`; from any thread.

        Raises:
            BaseException: What the runner raises, or the function of `asking`.
        """
        getattr(self._local, "first", lambda: None)()
        job = _Job(images)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        job.done.wait()
        if job.error is not None:
            raise job.error
        assert job.result is not None
        return job.result

    def close(self) -> None:
        """Ends the thread when what waits is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            if len(jobs) == 1 or not self._together(jobs):
                for job in jobs:
                    self._alone(job)
            for job in jobs:
                job.done.set()
            del jobs, job

    def _together(self, jobs: list[_Job]) -> bool:
        """Runs several jobs as one; False where that fails: one of them may be at fault, or the memory too small."""
        try:
            found = self.runner.run(np.concatenate([job.images for job in jobs]))
        except Exception:
            LOG.warning("%d tiles together failed; they are run one by one", len(jobs), exc_info=True)
            return False
        start = 0
        for job in jobs:
            job.result = found[start : start + len(job.images)]
            start += len(job.images)
        self.shared += len(jobs)
        return True

    def _alone(self, job: _Job) -> None:
        try:
            job.result = self.runner.run(job.images)
        except BaseException as error:  # raised where it was asked for
            job.error = error

    def _next(self) -> list[_Job] | None:
        """The job that came first, and those that go with it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            jobs = [self._jobs.popleft()]
            room = self.together - len(jobs[0].images)
            for job in list(self._jobs):
                if job.images.shape[1:] == jobs[0].images.shape[1:] and len(job.images) <= room:
                    self._jobs.remove(job)
                    jobs.append(job)
                    room -= len(job.images)
            return jobs
