"""The JSON document of a GPU benchmark: written before and after every measurement, and gone on with by a later run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring

UNFINISHED = "the process ended during this measurement"
"""What is in the file while a measurement runs, so that a run that goes on from there does not repeat it."""


class Record:
    """The document.

    Args:
        path: File to write.
        head: What the document says beside its rows.
        device: ``"cuda"`` or ``"cpu"``.
        resume: Go on with the rows of the file, where there is one.
    """

    def __init__(self, path: Path, head: dict[str, Any], device: str, resume: bool = False) -> None:
        self.path = path
        self.device = device
        self.document: dict[str, Any] = {**head, "rows": []}
        self.complaints: list[str] = []
        if resume and path.exists():
            self.document["rows"] = json.loads(path.read_text())["rows"]

    def row(self, **known: Any) -> dict[str, Any]:
        """The row with these values; a new one where there is none."""
        known = json.loads(json.dumps(known))  # as the file has them
        for row in self.document["rows"]:
            if known.items() <= row.items():
                found: dict[str, Any] = row
                return found
        row = {**known, "variants": {}}
        self.document["rows"].append(row)
        return row

    def measure(self, row: dict[str, Any], name: str, measurement: Callable[[], dict[str, Any]]) -> bool:
        """Adds a variant to a row, unless the file has it already, and says how that went.

        Args:
            row: The row.
            name: Name of the variant.
            measurement: Answers with what `measuring.attempt` answers.

        Returns:
            Whether there is a time for it, of now or of the file.

        Raises:
            ContextLost: By `measurement`; the file says so.
        """
        variants = row["variants"]
        if name not in variants or "skipped" in variants[name]:
            variants[name] = {"failed": UNFINISHED}
            self.write()
            try:
                variants[name] = measurement()
            except measuring.ContextLost as lost:
                variants[name] = {"failed": str(lost)}
                raise
            finally:
                self.write()
                print(f"{title(row)}: {name} {told(variants[name])}", flush=True)
        if "failed" in variants[name]:
            self.complaints.append(f"{title(row)}: {name} failed: {variants[name]['failed']}")
        return "median_ms" in variants[name]

    def compare(self, row: dict[str, Any], largest: float, difference: Callable[[], dict[str, float]]) -> None:
        """Adds to a row how far its results are apart, where there is memory for two of them.

        Args:
            row: The row.
            largest: Relative error beyond which a result is called wrong.
            difference: Computes both results and names their difference.

        Raises:
            ContextLost: The GPU does not answer any more.
        """
        try:
            found = difference()
        except Exception as error:
            found = {}
            if not measuring.out_of_memory(error):
                self.complaints.append(f"{title(row)}: the comparison failed: {type(error).__name__}: {error}")
        finally:
            measuring.tidy(self.device)
        for name, value in found.items():
            row[name] = value if math.isfinite(value) else None
            print(f"{title(row)}: {name} {value:.2g}", flush=True)
            if name == "relative_error" and not value <= largest:
                self.complaints.append(f"{title(row)}: WRONG: relative error {value:.2g}, more than {largest}")
        self.write()

    def write(self) -> None:
        """Writes the document beside its place and moves it there, so that no half-written file is left."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(self.path.name + ".part")
        draft.write_text(json.dumps(self.document, indent=1) + "\n")
        draft.replace(self.path)

    def finish(self) -> int:
        """Says again what failed; the exit code, 1 where something did."""
        self.write()
        for complaint in self.complaints:
            print(complaint, file=sys.stderr)
        print(f"{self.path}: {len(self.document['rows'])} rows, {len(self.complaints)} failures", flush=True)
        return 1 if self.complaints else 0


def title(row: dict[str, Any]) -> str:
    """A row's name on the terminal."""
    height, width = row["picture"]
    return f"{row.get('operator', '')} {row['preset']} {row['dtype']} {width}x{height}".strip()


def told(found: dict[str, Any]) -> str:
    """A measurement on the terminal."""
    if "median_ms" not in found:
        ((kind, why),) = found.items()
        return f"{kind}: {why}"
    memory = f", {found['peak_bytes'] / 2**20:.0f} MiB" if "peak_bytes" in found else ""
    return f"{found['median_ms']:.3f} ms{memory}"
