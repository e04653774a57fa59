"""Peak memory on a CPU: what `memory_plan` predicts against what is measured, at sizes not used for the fit.

Usage (from the root of the repository, with the package installed)::

    python benchmarks/memory.py --json memory.json

Each plan is fitted anew. Each size is measured in a process of its own: the peak of resident memory (VmHWM) above that
of the loaded runner, in two runs. Sizes that are predicted to take more than half of the free memory are left out, and
the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surroundings import surroundings

from agileir_export.cache import Cache
from agileir_export.engines import Runner
from agileir_export.engines.opening import open_onnx, open_runner
from agileir_export.export import export_onnx
from agileir_export.models import fold, load_model
from agileir_export.restore import memory_plan
from agileir_export.restore.free_memory import free_memory
from agileir_export.restore.peak_memory import measuring

MIB = 2**20
MODELS = ("agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_x2", "semanir_tiny_dn25")
SIZES = ((320, 480), (600, 800), (768, 1024))
TARGETS = ("onnxruntime", "openvino", "torch")
PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "agileir-export")


def measure(name: str, target: str, runner: Runner, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Rows of the table for one runner."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plan = memory_plan(runner, cache=Cache(Path(folder)))
    for height, width in sizes:
        row = {"model": name, "target": target, "rows": height, "columns": width}
        row |= {"predicted": plan.predict(height, width), "measured": None}
        row |= {"base_bytes": plan.base_bytes, "bytes_per_pixel": plan.bytes_per_pixel}
        if row["predicted"] < (free_memory() or 0) / 2:
            with measuring(runner) as taken:
                row["measured"] = taken(1, height, width).bytes
        rows.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown table."""
    lines = ["| model | runner | input | measured MiB | predicted MiB | error |", "|---|---|--:|--:|--:|--:|"]
    for row in rows:
        taken, told = row["measured"], row["predicted"]
        cells = (f"{taken / MIB:.0f}", f"{told / taken - 1:+.1%}") if taken else ("not run", "")
        lines.append(
            f"| {row['model']} | {row['target']} | {row['rows']}x{row['columns']} | {cells[0]} | {told / MIB:.0f} "
            f"| {cells[1]} |"
        )
    return "\n".join(lines)


def size(text: str) -> tuple[int, int]:
    """``768x1024`` as rows and columns."""
    rows, columns = map(int, text.split("x"))
    return rows, columns


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description="Predicted against measured peak memory on a CPU.")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--sizes", nargs="+", type=size, default=SIZES, metavar="HxW")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for target in options.targets:
        for name in options.models:
            runner = open_runner(name) if target == "torch" else open_onnx(export_onnx(fold(load_model(name))), target)
            rows += measure(name, target, runner, options.sizes)
    print(table(rows))
    if options.json:
        facts = {
            **surroundings(PACKAGES),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "results": rows,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
