"""What the command line shows: spinner, tables, warnings, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import AgileIRError
from ..progress import Progress, silent

__all__ = ["Terminal"]

PLAIN_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""

PACKAGE = __name__.partition(".")[0]
"""Whose log and warnings are shown."""


class _Notes(logging.Handler):
    """Shows what the package logs as notes of a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.INFO)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.note(record.getMessage())


@dataclass
class Terminal:
    """Where a verb speaks.

    Attributes:
        verbosity: -1 quiet, 0 normal, 1 verbose.
        as_json: The result is one JSON document on stdout.
        debug: Errors show their traceback.
        unfinished: What the verb has done so far, in the JSON document of an error, too.
    """

    verbosity: int = 0
    as_json: bool = False
    debug: bool = False
    unfinished: dict[str, Any] = field(default_factory=dict)
    _answered: bool = field(default=False, init=False)

    @contextmanager
    def working(self, title: str = "") -> Iterator[Progress]:
        """A spinner with elapsed time, or a bar where it is known how much there is, while the block runs.

        Into a file or a pipe goes a line a step, not one for every count.

        Args:
            title: What is being done; steps are told after it, or alone where it is empty.

        Yields:
            What is told each step.
        """
        start = f"{title}: " if title else ""
        if self.verbosity < 0:
            yield silent
        elif not sys.stderr.isatty():
            if title:
                self.note(title)
            yield lambda step, done=0, total=0, /: self.note(start + step) if done <= 1 else None
        else:
            yield from self._shown(title, start)

    def _shown(self, title: str, start: str) -> Iterator[Progress]:
        """The spinner, and the bar once there is a total."""
        from rich import progress as bars
        from rich.console import Console
        from rich.text import Text

        class Bar(bars.BarColumn):
            def render(self, task: bars.Task) -> Any:
                return super().render(task) if task.total else Text()

        columns = ("{task.description}", "{task.fields[counted]}")
        description, counted = (bars.TextColumn(text, markup=False) for text in columns)
        shown = bars.Progress(
            bars.SpinnerColumn(),
            description,
            Bar(),
            counted,
            bars.TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with shown:
            task = shown.add_task(title, total=None, counted="")

            def tell(step: str, done: int = 0, total: int = 0, /) -> None:
                told = f"{done}/{total}" if total else ""
                shown.update(task, description=start + step, completed=done, total=total or None, counted=told)

            yield tell

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What the package logs are notes while the block runs."""
        handler, logger = _Notes(self), logging.getLogger(PACKAGE)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    def note(self, text: str) -> None:
        """A line for people; nothing where quiet."""
        if self.verbosity >= 0:
            print(text, file=sys.stderr, flush=True)

    def warning(self, message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        """Stands in for `warnings.showwarning`: this package's own warnings, and where verbose those of others."""
        own = category.__module__.partition(".")[0] == PACKAGE
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
        Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)

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
            self.result({**self.unfinished, "error": error.to_json()})

    def refused(self, message: str) -> None:
        """A command line that is not understood, as the JSON document; click tells people."""
        fix = "See --help."
        self.result({"error": {"code": "usage", "exit_code": 2, "what": message, "why": "", "fix": fix}})
