"""More than one machine: Ray Data reads pictures in tasks, and restores them in actors that hold a runner each."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..engines.runner import Runner
from ..errors import AgileIRError, EnvironmentProblem
from ..models.spec import ModelSpec
from ..progress import Progress, silent
from .files import Plan
from .folder import Restoration, restore_with
from .journal import remove_leftovers, runner_key
from .one_picture import Restored, read_picture, restore_picture, size_of, write_picture
from .pipeline import Desk, Failed, Work, as_typed, of_the_place

__all__ = ["restore_on_ray"]

TRIES = 3
"""Actors that may die of a picture. Ray starts an actor again, and gives it the picture again, without end."""

AT_ONCE = 2
"""Pictures that an actor has: one in work, one waiting."""

Row = dict[str, Any]


def restore_on_ray(
    opener: Callable[[], Runner],
    plan: Plan,
    progress: Progress = silent,
    *,
    address: str = "local",
    workers: int | None = None,
    gpus: bool = False,
) -> tuple[Restoration, dict[str, Any]]:
    """Has a plan carried out on a Ray cluster. Its usage statistics are off.

    Every machine has this package, and sees pictures and output folder under the same paths. This process keeps the
    journal.

    Args:
        opener: Makes a runner, once in every actor; it can be pickled.
        plan: What to restore.
        progress: Told each picture that is finished.
        address: Of the cluster; ``"auto"`` for the one that runs here, ``"local"`` for one that is started on this
            machine and ends with the run.
        workers: Actors; None for one a GPU with `gpus`, and else one for two processors.
        gpus: Every actor has a GPU of its own, and sees no other.

    Returns:
        What became of the pictures, and how the runner describes itself.

    Raises:
        EnvironmentProblem: Ray is not installed, there is no cluster, or it has no GPU.
        AgileIRError: See `restore_pictures`.
    """
    with _cluster(address, workers) as ray:
        resources = ray.cluster_resources()
        if workers is None:
            workers = int(resources.get("GPU", 0)) if gpus else max(int(resources.get("CPU", 1)) // 2, 1)
        if gpus and resources.get("GPU", 0) < max(workers, 1):
            raise EnvironmentProblem(
                f"The Ray cluster has {resources.get('GPU', 0):g} GPUs, and {max(workers, 1)} are wanted.",
                fix="Add machines with GPUs, or restore an ONNX file on the CPU.",
            )
        share = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        error, *facts = ray.get(ray.remote(_facts).options(**share).remote(opener))
        if error is not None:
            raise error
        key, spec, described = facts

        def work(desk: Desk) -> None:
            _serve(ray, desk, opener, spec, workers, share)

        return restore_with(work, key, spec, plan, progress), described


@contextmanager
def _cluster(address: str, workers: int | None) -> Iterator[Any]:
    """Ray, connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EnvironmentProblem(
            f"Ray is not installed here, or not with Ray Data: {error}.", fix="pip install 'agileir-export[ray]'"
        ) from error
    main = threading.current_thread() is threading.main_thread()
    former = signal.getsignal(signal.SIGTERM)
    settings: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    if address == "local" and workers is not None:  # and as many for those that read
        settings["num_cpus"] = max(2 * workers, os.cpu_count() or 1)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"There is no Ray cluster at {address}: {error}", fix="Start one (`ray start --head`), or name another."
        ) from error
    finally:
        if main:  # Ray puts its own in place
            signal.signal(signal.SIGTERM, former)
    chatter = logging.getLogger("ray.data")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        chatter.setLevel(level)
        ray.shutdown()


def _facts(opener: Callable[[], Runner]) -> tuple[Any, ...]:
    """An error or None, key, spec and description of the runner, as a machine of the cluster opens it."""
    try:
        runner = opener()
    except AgileIRError as error:
        return error, None, None, None
    return None, runner_key(runner), runner.spec, runner.describe()


def _serve(
    ray: Any, desk: Desk, opener: Callable[[], Runner], spec: ModelSpec, workers: int, share: dict[str, Any]
) -> None:
    """Restores all that the desk gives."""
    left: dict[Path, Work] = {}
    while (work := desk.take(wait=True)) is not None:
        left[work.output.absolute()] = work
    if not left:
        return
    given = [Work(work.source.absolute(), output) for output, work in left.items()]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    tries = ray.remote(_Tries).options(num_cpus=0).remote()
    rows = (
        ray.data.from_items([{"work": work} for work in given], override_num_blocks=len(given))
        .map(
            _read, fn_args=(spec,), num_cpus=0.5
        )  # other resources than the next stage: Ray Data would make one of the two
        .map(
            _Restorer,
            fn_constructor_args=(opener, tries),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=AT_ONCE),
            **share,
        )
        .iter_rows()
    )
    for row in rows:
        if row["ended"] is not None:
            raise row["ended"]
        work = left.pop(row["result"].output)
        desk.started(work)
        desk.finished(dataclasses.replace(row["result"], source=work.source, output=work.output))
    remove_leftovers({work.output.parent for work in given})  # of actors that died


def _read(row: Row, spec: ModelSpec) -> Row:
    """The stage that reads: a task on any machine."""
    work: Work = row["work"]
    try:
        return {"work": work, "image": read_picture(work.source, spec), "failed": None}
    except Exception as error:
        return {"work": work, "image": None, "failed": Failed(work.source, work.output, as_typed(error))}


class _Tries:
    """An actor that counts how often every picture was begun."""

    def __init__(self) -> None:
        self.counts: Counter[Path] = Counter()

    def begin(self, output: Path) -> int:
        self.counts[output] += 1
        return self.counts[output]


class _Restorer:
    """The stage that restores and writes: an actor with a runner."""

    def __init__(self, opener: Callable[[], Runner], tries: Any) -> None:
        self.runner, self.tries = opener(), tries

    def __call__(self, row: Row) -> Row:
        import ray

        work: Work = row["work"]
        if row["failed"] is not None:
            return {"result": row["failed"], "ended": None}
        if ray.get(self.tries.begin.remote(work.output)) > TRIES:
            problem = EnvironmentProblem(
                f"{work.source} was not restored: {TRIES} workers of the cluster died of it.",
                fix="Restore it alone, in smaller tiles (--tile).",
            )
            return {"result": Failed(work.source, work.output, problem), "ended": None}
        try:
            start = time.perf_counter()
            image = row.pop("image")
            restored, size = restore_picture(self.runner, image, work.output), size_of(image)
            seconds = time.perf_counter() - start
            del image
            write_picture(work.output, restored, overwrite=True)  # an actor that died may have written it
            sizes = size, size_of(restored)
            return {"result": Restored(work.source, work.output, *sizes, seconds), "ended": None}
        except Exception as error:
            if of_the_place(error, work.output):
                return {"result": None, "ended": as_typed(error)}
            return {"result": Failed(work.source, work.output, as_typed(error)), "ended": None}
