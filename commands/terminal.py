"""What the command line shows: spinner, tables, warnings, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..errors import AgileIRError

__all__ = ["Terminal"]

PLAIN_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""


@dataclass
class Terminal:
    """Where a verb speaks.

    Attributes:
        verbosity: -1 quiet, 0 normal, 1 verbose.
        as_json: The result is one JSON document on stdout.
        debug: Errors show their traceback.
    """

    verbosity: int = 0
    as_json: bool = False
    debug: bool = False
    _answered: bool = field(default=False, init=False)

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner with elapsed time while the block runs; yields a function that tells the current step."""
        if self.verbosity < 0:
            yield lambda step: None
            return
        if not sys.stderr.isatty():
            self.note(text)
            yield lambda step: self.note(f"{text}: {step}")
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(text)
            yield lambda step: progress.update(task, description=f"{text}: {step}")

    @contextmanager
    def counting(self, text: str) -> Iterator[Callable[[str, int, int], None]]:
        """A progress bar while the block runs; yields a function of the step, and how many of how many are done.

        0 of 0 is a step of unknown length. Into a file or a pipe goes a line a step, not one for every count.
        """
        if self.verbosity < 0 or not sys.stderr.isatty():
            with self.working(text) as tell:
                yield lambda step, done, total: tell(step) if done <= 1 else None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(text, total=None)
            yield lambda step, done, total: progress.update(
                task, description=f"{text}: {step}", completed=done, total=total or None
            )

    def note(self, text: str) -> None:
        """A line for people; nothing where quiet."""
        if self.verbosity >= 0:
            print(text, file=sys.stderr, flush=True)

    def warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Stands in for `warnings.showwarning`: this package's own warnings, and where verbose those of others."""
        own = category.__module__.partition(".")[0] == __package__.partition(".")[0]
        if own or self.verbosity > 0:
            self.note(f"warning: {message}")

    def result(self, data: Any) -> None:
        """The result of a verb for machines; nothing without ``--json``."""
        if self.as_json:
            print(json.dumps(data, indent=2, default=str))
            self._answered = True

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """The result of a verb for people; nothing with ``--json``."""
        if self.as_json:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # Text, for square brackets in a cell would be taken as markup
        table = Table(*columns, title=Text(title, "bold"), title_justify="left")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        console = Console()
        Console(width=console.width if sys.stdout.isatty() else PLAIN_WIDTH).print(table)

    def error(self, error: AgileIRError) -> None:
        """What happened, why, what to do; with ``--json`` as the JSON document, too, unless there is a result already.

        Called while the error is handled, so that ``--debug`` has a traceback to show.
        """
        if self.debug:
            traceback.print_exc()
        print(f"error: {error.what}", file=sys.stderr)
        for text in (error.why, error.fix):
            if text:
                print(f"  {text}", file=sys.stderr)
        if not self._answered:
            self.result({"error": error.to_json()})
