"""Large photographs within a budget of memory: peak resident memory, time, and the tiles that were chosen.

    python benchmarks/photographs.py agileir_tiny_x2:12 semanir_tiny_x2:12 --output benchmarks/results/photographs.json

Each argument is a model and a size in megapixels (4 to 3). The photograph is a JPEG put together from the packaged
samples, and becomes a JPEG, or a TIFF where a JPEG cannot be as large. Every run is that of `restore_pictures`, memory
measured and all, in a process of its own: the peak is that of this process (VmHWM), the processor time that of it and
of those that it starts. What is measured is written after every run, beside what the file had before.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image as pillow
from surroundings import surroundings

from agileir_export import convert, open_runner, restore_pictures
from agileir_export.process_memory import PEAK, process_memory
from restore import make_photograph

JPEG_SIDE = 65500
"""Pixels of the greatest side of a JPEG."""

GIB = 2**30
PACKAGES = ("onnxruntime", "openvino", "numpy", "pillow", "agileir-export")


def run_one(model: Path, photo: Path, output: Path, runtime: str, budget: int) -> dict[str, Any]:
    """Peak memory, time and tiles of one photograph, in this process."""
    told: list[str] = []
    begun = time.monotonic()
    runner = open_runner(model, runtime=runtime)
    restore_pictures(runner, photo, output, True, lambda what, *_: told.append(what), memory=budget)
    used = os.times()
    tiles = {what for what in told if "overlap" in what}
    assert len(tiles) <= 1, tiles
    return {
        "runtime": runner.describe()["target"],
        "tiles": next(iter(tiles), "whole"),
        "peak_bytes": process_memory(PEAK),
        "seconds": round(time.monotonic() - begun, 1),
        "processor_seconds": round(used.user + used.system + used.children_user + used.children_system, 1),
    }


def measure(name: str, megapixels: float, folder: Path, runtime: str, budget: int) -> dict[str, Any]:
    """One photograph through one model."""
    rows, columns = (round(math.sqrt(megapixels * 1e6 * share)) for share in (3 / 4, 4 / 3))
    model, photo = folder / f"{name}.onnx", folder / f"{rows}x{columns}.jpg"
    artifact = convert(name)
    if not model.exists():
        artifact.write(model)
    if not photo.exists():
        make_photograph(photo, rows, columns)
    size = rows * artifact.spec.scale, columns * artifact.spec.scale
    output = folder / ("restored.jpg" if max(size) <= JPEG_SIDE else "restored.tif")
    command = [sys.executable, __file__, "--one", str(model), str(photo), str(output), runtime, str(budget)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    pillow.MAX_IMAGE_PIXELS = None
    with pillow.open(output) as opened:
        assert opened.size == size[::-1]
    found = json.loads(done.stdout.splitlines()[-1])
    return {"model": name, "rows": rows, "columns": columns, "output": output.suffix, "budget_bytes": budget, **found}


def table(results: list[dict[str, Any]]) -> str:
    """The Markdown table."""
    lines = ["| model | picture | budget | peak | tiles | processor time |", "|---|--:|--:|--:|---|--:|"]
    for row in results:
        sizes = f"{row['budget_bytes'] / GIB:g} GiB | {row['peak_bytes'] / GIB:.2f} GiB"
        lines.append(
            f"| `{row['model']}` | {row['columns']}x{row['rows']} | {sizes} | {row['tiles']} "
            f"| {row['processor_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="MODEL:MEGAPIXELS")
    parser.add_argument("--memory", type=float, default=4, metavar="GIB")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--folder", type=Path, help="Where pictures are kept. Default: nowhere.")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        model, photo, output, runtime, budget = arguments.one
        print(json.dumps(run_one(Path(model), Path(photo), Path(output), runtime, int(budget))))
        return
    kept = arguments.output
    results = json.loads(kept.read_text())["results"] if kept and kept.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        for run in arguments.runs:
            name, megapixels = run.split(":")
            found = measure(name, float(megapixels), folder, arguments.runtime, round(arguments.memory * GIB))
            results.append(found)
            print(table([found]).splitlines()[-1], flush=True)
            if kept:
                kept.write_text(json.dumps({**surroundings(PACKAGES), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
