"""Many pictures: what is to be done, what was done, skipped or failed, written down so that a later run can go on."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from ..engines.runner import Runner
from ..errors import EnvironmentProblem, OutputError
from ..files import LOG_FIX, appended
from ..models.spec import ModelSpec
from ..progress import Progress, silent
from .files import FolderOptions, Plan, check_pictures, plan_outputs
from .journal import Journal, remove_leftovers, runner_key
from .one_picture import Restored
from .pipeline import Desk, Failed, Work, pictures_room, restore_each
from .seams import SEAM_PSNR
from .tiled_runner import PlannedRoom, Tile, TiledRunner

__all__ = ["Restoration", "Skipped", "restore_pictures", "restore_planned", "restore_with"]

LOG = logging.getLogger(__name__)

COMPRESSED = 0.25
"""Bytes that a restored picture takes at least, of what its source takes for as many pixels: half of the least that was
measured (0.45 to 1.8: PNG, WebP and JPEG of the packaged samples, x2 and x4)."""


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out.

    Attributes:
        source: The picture.
        output: The file that is there already.
        reason: ``"done before"`` (by a run that was resumed) or ``"exists"``.
    """

    source: Path
    output: Path
    reason: str


@dataclass(frozen=True)
class Restoration:
    """What became of pictures, each in the order of the input.

    Attributes:
        done: Restored.
        skipped: Left out.
        failed: Not restored, and why.
        seconds: Time of all, without loading the model.
    """

    done: tuple[Restored, ...]
    skipped: tuple[Skipped, ...]
    failed: tuple[Failed, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: ``files`` are those that were restored."""
        return {
            "files": [_told(each) for each in self.done],
            "skipped": [_told(each) for each in self.skipped],
            "failed": [_told(each) for each in self.failed],
            "seconds": self.seconds,
        }


def restore_pictures(
    runner: Runner,
    images: str | Path | Sequence[str | Path],
    output: str | Path,
    overwrite: bool = False,
    progress: Progress = silent,
    *,
    tile: Tile = "auto",
    overlap: int | None = None,
    seam_psnr: float = SEAM_PSNR,
    memory: int | None = None,
    recursive: bool = False,
    resume: bool = False,
    skip_existing: bool = False,
    keep_going: bool | None = None,
    log: str | Path | None = None,
) -> Restoration:
    """Restores picture files, all pictures of folders and trees, or those of patterns and lists, of any size.

    What comes next is read, and what is restored is written, while the runner works; all that can be known beforehand
    is checked before the first picture. In an output folder, a journal (`journal.JOURNAL`) is kept for `resume`.

    Args:
        runner: What restores, see `open_runner`.
        images: Picture, folder, pattern (``photos/**/*.jpg``) or list (``@list.txt``), or several.
        output: File for one picture, folder for several; see `plan_outputs`.
        overwrite: Whether existing files may be replaced.
        progress: Told each picture, with pictures a second and the time left, and each tile.
        tile: ``"auto"`` restores whole what fits and cuts the rest into the largest tiles that do; ``"off"`` never
            cuts; or the greatest side of a tile, or its (rows, columns), in pixels of the picture.
        overlap: Pixels that neighbouring tiles share at least; None for the fewest that reach `seam_psnr`.
        seam_psnr: dB at the seams of tiles against the whole picture.
        memory: With `tile` ``"auto"``, most bytes that this process may hold; None for all that is free.
        recursive: Whether folders are searched with all that is in them; the output mirrors the tree.
        resume: Leaves what an earlier run finished, see `FolderOptions`.
        skip_existing: Leaves pictures out whose output exists.
        keep_going: Whether the rest is done where a picture cannot be restored; None for so where there are several.
        log: File to which a line of JSON is appended for every picture.

    Returns:
        What was done, skipped, and failed.

    Raises:
        InputError: Options that cannot be.
        ImageError: There is no such picture; or, without `keep_going`, it cannot be read.
        OutputError: An output cannot be written: beforehand, or as the disk is full or the folder gone.
        EnvironmentProblem: The disk has no room for what is to be restored; or, without `keep_going`, a picture needs
            more memory than there is.
    """
    named = [images] if isinstance(images, str | Path) else list(images)
    where = None if log is None else Path(log)
    options = FolderOptions(overwrite, recursive, resume, skip_existing, keep_going, where)
    room = PlannedRoom(runner, memory, progress)
    tiled = TiledRunner(runner, tile, overlap, seam_psnr, room, progress=progress)
    return restore_planned(tiled, plan_outputs(named, output, options), progress, memory=memory)


def restore_planned(
    runner: Runner, plan: Plan, progress: Progress = silent, *, memory: int | None = None
) -> Restoration:
    """`restore_pictures` of what is planned already (`plan_outputs`)."""

    def work(desk: Desk) -> None:
        restore_each(runner, desk, pictures_room(memory))

    return restore_with(work, runner_key(runner), runner.spec, plan, progress)


def restore_with(
    work: Callable[[Desk], None], key: str, spec: ModelSpec, plan: Plan, progress: Progress = silent
) -> Restoration:
    """Has a plan carried out, by whatever takes work from a desk.

    Args:
        work: Restores all that the desk gives.
        key: Of the runner, see `runner_key`.
        spec: The model's spec.
        plan: What to restore.
        progress: Told each picture.

    Raises:
        AgileIRError: See `restore_pictures`.
    """
    with ExitStack() as open_files:
        journal = None if plan.folder is None else open_files.enter_context(Journal(plan.folder, key))
        if journal is not None and plan.options.resume:
            remove_leftovers({output.parent for _, output in plan.pairs})
        log = open_files.enter_context(appended(plan.options.log))
        ledger = _Ledger(plan, journal, log, progress)
        check_pictures(ledger.pairs, spec)
        _check_space(ledger.pairs, spec.scale)
        try:
            work(ledger)
        except OutputError as error:
            if not plan.keep_going:
                raise
            fix = f"{error.fix} " if error.fix else ""
            again = "with --resume" if plan.folder else "again"
            raise OutputError(
                f"{error.what} That ends the run, with {len(ledger.results)} of {len(plan.pairs)} pictures looked at.",
                why=error.why,
                fix=f"{fix}Then run it {again}: what is done stays.",
            ) from error
        return ledger.restoration()


class _Ledger:
    """Gives out work, and writes down what becomes of it. A `Desk`."""

    def __init__(self, plan: Plan, journal: Journal | None, log: IO[str] | None, progress: Progress) -> None:
        self._plan, self._journal, self._log, self._progress = plan, journal, log, progress
        self._lock = threading.Lock()
        self._start = time.perf_counter()
        self._finished = 0
        self._skipped: list[Skipped] = []
        self.results: dict[Path, Restored | Failed | Skipped] = {}
        self.pairs = [pair for pair in plan.pairs if not self._skips(*pair)]
        self._numbers = {output: number for number, (_, output) in enumerate(plan.pairs, 1)}
        self._left = deque(self.pairs)

    def take(self, wait: bool) -> Work | None:
        """See `Desk.take`."""
        del wait  # all work is there from the beginning
        with self._lock:
            if not self._left:
                return None
            source, output = self._left.popleft()
            replace = self._plan.options.overwrite
            if self._journal is not None:
                replace |= self._plan.options.resume and self._journal.is_ours(output)
                self._journal.begin(source, output)
            return Work(source, output, replace)

    def started(self, work: Work) -> None:
        """See `Desk.started`."""
        number, total = self._numbers[work.output], len(self._plan.pairs)
        told = f"{work.source.name} ({number} of {total})"
        if self._finished:
            rate = self._finished / (time.perf_counter() - self._start)
            left = timedelta(seconds=round((len(self.pairs) - self._finished) / rate))
            told += f", {rate:.3g} pictures/s, {left} left"
        self._progress(told)

    def finished(self, result: Restored | Failed) -> None:
        """See `Desk.finished`."""
        with self._lock:
            if self._journal is not None and isinstance(result, Restored):
                self._journal.finish(result.output)
            self._note(result)
            self._finished += 1
        if isinstance(result, Failed):
            if not self._plan.keep_going:
                raise result.error
            LOG.info("Left out: %s", result.error.what)

    def restoration(self) -> Restoration:
        """All that became of the pictures."""
        results = [self.results[output] for _, output in self._plan.pairs]
        return Restoration(
            tuple(each for each in results if isinstance(each, Restored)),
            tuple(each for each in results if isinstance(each, Skipped)),
            tuple(each for each in results if isinstance(each, Failed)),
            time.perf_counter() - self._start,
        )

    def _skips(self, source: Path, output: Path) -> bool:
        options, journal = self._plan.options, self._journal
        if options.resume and journal is not None and journal.is_done(source, output):
            reason = "done before"
        elif options.skip_existing and output.exists() and not (options.resume and journal and journal.is_ours(output)):
            reason = "exists"
        else:
            return False
        self._note(Skipped(source, output, reason))
        return True

    def _note(self, result: Restored | Failed | Skipped) -> None:
        self.results[result.output] = result
        if self._log is not None:
            status = {Restored: "done", Failed: "failed", Skipped: "skipped"}[type(result)]
            try:
                self._log.write(json.dumps({"status": status, **_told(result)}) + "\n")
                self._log.flush()
            except OSError as error:
                raise OutputError(f"Cannot write the log {self._log.name}: {error.strerror}.", fix=LOG_FIX) from error


def _told(result: Restored | Failed | Skipped) -> dict[str, Any]:
    """A result as a JSON object."""
    told: dict[str, Any] = {"source": str(result.source), "output": str(result.output)}
    if isinstance(result, Failed):
        return {**told, "error": result.error.to_json()}
    return {**dataclasses.asdict(result), **told}


def _check_space(pairs: Sequence[tuple[Path, Path]], scale: int) -> None:
    """Says before any work that the disk will be full.

    Raises:
        EnvironmentProblem: The least that the restored pictures may take is more than is free.
    """
    if not pairs:
        return
    sources = sum(source.stat().st_size for source, _ in pairs if source.is_file())
    needed, folder = int(sources * scale * scale * COMPRESSED), pairs[0][1].parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EnvironmentProblem(
            f"{len(pairs)} restored pictures take at least {needed / 1e9:.3g} GB, and {os.fspath(folder)} has "
            f"{free / 1e9:.3g} GB left.",
            fix="Make room, choose another disk, or restore fewer pictures at a time.",
        )
