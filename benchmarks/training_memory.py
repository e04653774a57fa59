"""Training memory and time: AgileIR against SwinIR, SemanIR against k and the image size.

Usage (from the root of the repository, with the package installed)::

    python benchmarks/training_memory.py --out docs/images

Every configuration runs in a process of its own. "Saved" are the bytes that autograd keeps between
the forward and the backward pass: every storage once, without parameters and input
(`torch.autograd.graph.saved_tensors_hooks`). "Peak" is the rise of the process's resident memory
over one training step on a CPU, and of `max_memory_allocated` on a GPU. Times are medians of whole
training steps (forward, backward, Adam): CPU time of the process, which other programs disturb less
than the clock, or elapsed time on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agileir_export.images.charts import Bar, bar_chart

MIB = 2**20
COLOURS = ("#4c566a", "#81a1c1", "#bf616a", "#d08770", "#a3be8c", "#b48ead")


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        table: Table it belongs to.
        label: Row of the table.
        column: Column of the table: batch size, image side or k.
        family: Registry name.
        shape: Hyper-parameters of the network.
        operators: The package's operators, which recompute, instead of plain functions.
        batch: Images a step.
        side: Height and width of the images.
    """

    table: str
    label: str
    column: int
    family: str
    shape: dict[str, Any] = field(hash=False)
    operators: bool
    batch: int
    side: int


def agileir_cases(side: int, batches: Sequence[int], wide: bool) -> list[Case]:
    """SwinIR and four AgileIRs of the same width, depth and window."""
    if wide:
        width, window, heads, table = 180, 16, 6, "C 180, window 16, 6 heads"
    else:
        width, window, heads, table = 60, 8, 6, "C 60, window 8, 6 heads"
    base = {
        "embed_dim": width,
        "depths": (2, 2),
        "num_heads": (heads,) * 2,
        "window_size": window,
        "upsampler": "pixelshuffledirect",
        "scale": 2,
    }
    agile = {**base, "key_dims": (16, 16)}
    free = {**agile, "batch_norm": False}
    rows: list[tuple[str, str, dict[str, Any], bool]] = [
        ("SwinIR, plain", "swinir", base, False),
        ("SwinIR, operator", "swinir", base, True),
        ("AgileIR with BatchNorm, plain", "agileir", agile, False),
        ("AgileIR, plain", "agileir", free, False),
        ("AgileIR, operator", "agileir", free, True),
        ("AgileIR, attention bypassed", "agileir", {**free, "attention": "bypassed"}, False),
    ]
    return [
        Case(table, label, batch, family, shape, operators, batch, side)
        for label, family, shape, operators in rows
        for batch in batches
    ]


def semanir_cases(quick: bool) -> list[Case]:
    """SemanIR, window 16, against k and against the side of the image."""
    base = {
        "embed_dim": 60,
        "depths": (2, 2),
        "num_heads": 6,
        "window_size": 16,
        "upsampler": "pixelshuffledirect",
        "scale": 2,
    }
    cases = []
    for label, operators in (("plain", False), ("operator", True)):
        for k in (16, 256) if quick else (16, 64, 128, 256):
            shape = {**base, "top_k": k}
            table = "SemanIR against k (64x64)"
            cases.append(Case(table, label, k, "semanir", shape, operators, 1, 64))
        for side in (32, 64) if quick else (32, 64, 96, 128):
            shape = {**base, "top_k": 64}
            table = "SemanIR against the side (k 64)"
            cases.append(Case(table, label, side, "semanir", shape, operators, 1, side))
    return cases


def saved_bytes(model: Any, images: Any) -> int:
    """Bytes that autograd keeps of a forward pass: every storage once, no parameter or input."""
    import torch

    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(images)
    own = [*model.parameters(), *model.buffers(), images]
    for tensor in own:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    del output
    return sum(storages.values())


def measure(case: Case, device: str, steps: int, threads: int) -> dict[str, Any]:
    """Saved bytes, peak bytes and seconds a step of one case; runs in a fresh process."""
    import torch

    from agileir_export.models import FAMILIES, use_operators

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = FAMILIES[case.family].build(**case.shape).to(device).train()
    use_operators(model, case.operators)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images = torch.rand(case.batch, 3, case.side, case.side, device=device)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(model(images).square().mean())
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    saved = saved_bytes(model, images)
    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _reset_peak_resident()
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds = []
    for _ in range(steps):
        started = clock()
        step()
        seconds.append(clock() - started)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _peak_resident()
    return {
        **asdict(case),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "saved": saved,
        "peak": max(peak - before, 0),
        "seconds": statistics.median(seconds),
    }


def _reset_peak_resident() -> int:
    """Starts a new peak of resident memory (Linux); returns the bytes resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_resident() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system does not tell {name}")


def table(results: Sequence[dict[str, Any]], title: str) -> str:
    """One Markdown table: a row per variant, saved MiB / peak MiB / milliseconds a column."""
    chosen = [result for result in results if result["table"] == title]
    columns = sorted({result["column"] for result in chosen})
    labels = list(dict.fromkeys(result["label"] for result in chosen))
    lines = [
        "| saved MiB / peak MiB / ms a step | " + " | ".join(map(str, columns)) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for label in labels:
        cells = []
        for column in columns:
            (found,) = [r for r in chosen if (r["label"], r["column"]) == (label, column)]
            cells.append(f"{found['saved'] / MIB:.1f} / {found['peak'] / MIB:.0f} / {found['seconds'] * 1000:.0f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chart(title: str, results: Sequence[dict[str, Any]]) -> str:
    """The saved bytes of one table as bars, grouped by batch; bars of one label share a colour."""
    most = max(result["saved"] for result in results)
    colours = dict(zip(dict.fromkeys(result["label"] for result in results), itertools.cycle(COLOURS)))
    groups = {
        f"batch {batch}": [
            Bar(r["label"], r["saved"] / most, f"{r['saved'] / MIB:.1f} MiB", colours[r["label"]])
            for r in results
            if r["column"] == batch
        ]
        for batch in sorted({result["column"] for result in results})
    }
    return bar_chart(f"Saved for backward ({title}, 64x64)", groups, labels=210)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, and writes results and charts."""
    parser = argparse.ArgumentParser(description="Training memory and time of the three families.")
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--steps", type=int, default=5, help="timed steps of every case (%(default)s)")
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    add("--quick", action="store_true", help="fewer and smaller cases")
    add("--out", type=Path, help="folder for training_memory.json and the chart")
    options = parser.parse_args(arguments)
    batches = (1, 2) if options.quick else (1, 2, 4, 8)
    cases = agileir_cases(64, batches, wide=False)
    if not options.quick:
        cases += agileir_cases(64, (1, 2, 4), wide=True)
    cases += semanir_cases(options.quick)
    # memory goes back to the system at once, so that the peak of every step is its own
    os.environ.update(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    results = []
    context = multiprocessing.get_context("spawn")
    for number, case in enumerate(cases, 1):
        with context.Pool(1) as pool:
            given = (case, options.device, options.steps, options.threads)
            results.append(pool.apply(measure, given))
        print(f"[{number}/{len(cases)}] {case.table}: {case.label}, {case.column}", file=sys.stderr)
    titles = list(dict.fromkeys(case.table for case in cases))
    for title in titles:
        print(f"\n{title}\n\n{table(results, title)}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "training_memory.json").write_text(json.dumps(results, indent=1) + "\n")
        for name, title in zip(("narrow", "wide"), titles, strict=False):
            chosen = [result for result in results if result["table"] == title]
            if "SemanIR" not in title:
                (options.out / f"training_memory_{name}.svg").write_text(chart(title, chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
