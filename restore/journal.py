"""The journal of an output folder: which pictures were begun and finished, so that a killed run can go on.

A line of JSON each, appended in one write. Before a picture is read, ``{"begun": output, "source": path, "size": bytes,
"mtime_ns": time, "runner": key}``; once its file stands under its name, ``{"done": output, "bytes": size}``. So a file
that was renamed just before the end, and is not yet told as done, is known to be ours and may be replaced. A line that
was cut off counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..engines.runner import Runner
from ..errors import OutputError
from ..json_form import parse_json
from .identity import runner_facts

__all__ = ["JOURNAL", "Journal", "begun_outputs", "remove_leftovers", "runner_key"]

JOURNAL = ".agileir-restore.jsonl"
LEFTOVERS = ".agileir-*.tmp"
"""Files that were being written (`files.write_atomic`) when a process was killed."""


@dataclass
class _Entry:
    """What the journal says of an output: its source and runner as they were, and its size once it is done."""

    begun: dict[str, Any]
    bytes: int | None = None


def runner_key(runner: Runner) -> str:
    """Tells a runner, with its choice of tiles, from those that make other pixels."""
    inner = getattr(runner, "runner", runner)
    facts = runner_facts(inner) or {"runner": inner.describe(), "spec": inner.spec.to_json()}
    told = json.dumps({**facts, "tiles": getattr(runner, "asked", None)}, sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def begun_outputs(folder: Path) -> set[Path]:
    """The files of an output folder that its journal knows."""
    return {folder / output for output in _read(folder / JOURNAL)}


def remove_leftovers(folders: set[Path]) -> None:
    """Removes what a killed run left half-written in folders."""
    for folder in folders:
        for file in folder.glob(LEFTOVERS):
            file.unlink(missing_ok=True)


class Journal:
    """The journal of one run; no other run writes to the same folder meanwhile.

    Args:
        folder: The output folder.
        key: What `runner_key` says of the runner.

    Raises:
        OutputError: Another run writes to the folder, or the journal cannot be written.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key, self._path = folder, key, folder / JOURNAL
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._refused(error) from error
        try:
            self._lock()
            self._entries = _read(self._path)
            if os.lseek(self._file, 0, os.SEEK_END):
                os.lseek(self._file, -1, os.SEEK_END)
                if os.read(self._file, 1) != b"\n":  # a line was cut off
                    self._write(b"\n")
        except BaseException:
            os.close(self._file)
            raise

    def is_done(self, source: Path, output: Path) -> bool:
        """Whether this runner has made an output of a source that has not changed since, and it is still there."""
        entry = self._entries.get(self._name(output))
        if entry is None or entry.bytes is None or entry.begun != self._begun(source, output):
            return False
        return output.is_file() and output.stat().st_size == entry.bytes

    def is_ours(self, output: Path) -> bool:
        """Whether an output was written, or may have been, by a run that the journal tells of."""
        return self._name(output) in self._entries

    def begin(self, source: Path, output: Path) -> None:
        """Tells, before a source is read, that its output may appear from now on.

        Raises:
            OutputError: The journal cannot be written.
        """
        begun = self._begun(source, output)
        if begun is not None:
            self._append(begun)

    def finish(self, output: Path) -> None:
        """Tells that an output stands complete under its name.

        Raises:
            OutputError: The journal cannot be written, or the output's folder is gone.
        """
        try:
            size = output.stat().st_size
        except OSError as error:
            if output.parent.is_dir():  # somebody has taken it away already
                return
            raise OutputError(f"The folder {output.parent} is gone.", fix="Look where it went.") from error
        self._append({"done": self._name(output), "bytes": size})

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _name(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()

    def _begun(self, source: Path, output: Path) -> dict[str, Any] | None:
        """The line that begins a picture; None where the source is not there, which reading it will say."""
        try:
            state = source.stat()
        except OSError:
            return None
        return {
            "begun": self._name(output),
            "source": str(source.resolve()),
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "runner": self._key,
        }

    def _append(self, line: dict[str, Any]) -> None:
        self._write(json.dumps(line).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while data:  # the rest of a line that was not taken whole says why
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise self._refused(error) from error

    def _lock(self) -> None:
        """Keeps other runs away until the file is closed, where the system can; the end of a process opens it again."""
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"Another run restores pictures to {self._folder} at this moment.",
                fix="Wait for its end, or name another folder.",
            ) from error
        except OSError:  # a file system without locks
            return

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"Cannot write the journal {self._path}: {error.strerror}.",
            fix="Check free space, quota and permissions of the folder.",
        )


def _read(path: Path) -> dict[str, _Entry]:
    """What the journal says last of every output; nothing where there is none."""
    entries: dict[str, _Entry] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return entries
    except OSError as error:
        raise OutputError(f"Cannot read the journal {path}: {error.strerror}.", fix="Check its permissions.") from error
    for line in lines:
        try:
            told = parse_json(line)
            if "begun" in told:
                entries[str(told["begun"])] = _Entry(told)
            else:
                entries[str(told["done"])].bytes = int(told["bytes"])
        except (ValueError, KeyError, TypeError):  # cut off, or not ours
            continue
    return entries
