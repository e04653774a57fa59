"""How a training behaves towards its folder and its user: log, failed writes, interruption."""

from __future__ import annotations

import contextlib
import csv
import errno
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agileir_export.errors import OutputError


class Log:
    """``log.csv`` of a run; rows after the step it goes on from are dropped.

    The column "seconds" counts from the last start of the program.
    """

    FIELDS = ("step", "loss", "lr", "grad_norm", "seconds", "validation_psnr")

    def __init__(self, file: Path, step: int) -> None:
        rows: list[dict[str, str]] = []
        if step and file.exists():
            with file.open(newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]
        self.file = file
        with typed_write_errors(file), file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.FIELDS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def add(self, **values: Any) -> None:
        """Appends one row and closes the file again."""
        with typed_write_errors(self.file), self.file.open("a", newline="") as stream:
            csv.DictWriter(stream, self.FIELDS).writerow(values)


@contextlib.contextmanager
def typed_write_errors(file: Path) -> Iterator[None]:
    """Turns a failed write inside the block into an `OutputError` that names the file."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"Cannot write {file}: {error.strerror}.",
            fix="Free some space, then go on with --resume." if full else "",
        ) from error


class Interrupt:
    """Turns SIGINT and SIGTERM into a flag, so that a run ends between two steps."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.asked = True
