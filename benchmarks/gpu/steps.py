"""The steps of a benchmark that may fail one by one: a row of JSON for each, written after it."""

from __future__ import annotations

import datetime
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Report:
    """The rows of a part, written after each.

    Args:
        path: JSON file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []  # type: ignore[var-annotated]
        self.head: dict[str, Any] = {}

    def step(self, name: str, work: Callable[[dict[str, Any]], None]) -> bool:
        """Does a step; `work` adds to its row. An error is kept with the row, and the next step goes on."""
        row: dict[str, Any] = {"step": name}
        start = time.perf_counter()
        try:
            work(row)
            row.setdefault("passed", True)
        except Exception as error:
            row |= {"passed": False, "error": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
        row["seconds"] = round(time.perf_counter() - start, 2)
        self.rows.append(row)
        self.path.write_text(json.dumps({**self.head, "rows": self.rows}, indent=1) + "\n")
        print(json.dumps(row), flush=True)
        return bool(row["passed"])

    def finish(self) -> int:
        """The exit code."""
        failed = [row["step"] for row in self.rows if not row["passed"]]
        print(f"{self.path}: {len(self.rows)} steps, failed: {', '.join(failed) or 'none'}", flush=True)
        return 1 if failed or not self.rows else 0


def now() -> str:
    """Date and time in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
