"""What the command line shows: spinner, tables, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .errors import AgileIRError

__all__ = ["Terminal"]


@dataclass
class Terminal:
    """Where a verb speaks.

    Attributes:
        verbosity: -1 quiet, 0 normal, 1 verbose.
        as_json: Results are one JSON object on stdout.
        debug: Errors show their traceback.
    """

    verbosity: int = 0
    as_json: bool = False
    debug: bool = False

    @contextmanager
    def working(self, text: str) -> Iterator[Any]:
        """A spinner with elapsed time while the block runs; yields a function that changes the text."""
        if self.verbosity < 0:
            yield lambda step: None
            return
        if not sys.stderr.isatty():

            def announce(step: str) -> None:
                print(f"{text}: {step}", file=sys.stderr, flush=True)

            print(text, file=sys.stderr, flush=True)
            yield announce
            return
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(text)
            yield lambda step: progress.update(task, description=f"{text}: {step}")

    def note(self, text: str) -> None:
        """A line for people."""
        if self.verbosity >= 0:
            print(text, file=sys.stderr, flush=True)

    def result(self, data: Any) -> None:
        """The result of a verb for machines; nothing without ``--json``."""
        if self.as_json:
            print(json.dumps(data, indent=2, default=str))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; nothing with ``--json``."""
        if self.as_json or self.verbosity < 0:
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns, title=title or None, title_justify="left", title_style="bold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        console = Console()
        width = console.width if sys.stdout.isatty() else 160
        Console(width=width).print(table)

    def error(self, error: AgileIRError) -> None:
        """An error: what, why, what to do."""
        if self.as_json:
            print(json.dumps({"error": error.to_json()}, indent=2))
            return
        print(f"error: {error.what}", file=sys.stderr)
        for text in (error.why, error.fix):
            if text:
                print(f"  {text}", file=sys.stderr)
