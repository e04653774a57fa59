"""CPU inference: the exported file under ONNX Runtime against PyTorch and against plain exports of the same network.

Usage (from the root of the repository, with the package installed)::

    python benchmarks/cpu_inference.py --json cpu_inference.json

Five variants of one folded network with the same random weights:

* torch eager: the plain formulation in ordinary torch functions, without our operators;
* torch.compile of the same;
* ``torch.onnx.export`` of the same (dynamo exporter) under ONNX Runtime;
* the same with the older TorchScript exporter;
* our export under ONNX Runtime.

The two plain exports are made for exactly the measured size, which is their best case; our file takes any size.
Every variant lives in a process of its own, and one process works at a time: a round asks each variant once, in an
order that changes from round to round. The speed is the median over rounds of torch eager's time over the variant's.
All outputs are compared with torch eager's before any time is taken. "Peak" is the rise of resident memory during the
first inference above that just before it (Linux: VmHWM, reset in between; elsewhere ru_maxrss); of torch.compile
during the second, because the first one compiles.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

MIB = 2**20
EAGER, COMPILED, DYNAMO, SCRIPT, OURS = VARIANTS = (
    "torch eager",
    "torch.compile",
    "plain export, dynamo",
    "plain export, TorchScript",
    "ours",
)
MODELS = ("agileir_lightest_x2", "swinir_light_x2", "semanir_s_x2")
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "agileir-export")
AGREEMENT = 60.0
"""dB: below this a variant computes something else; rounding, and near-ties of a top-k, stay above."""


@dataclass(frozen=True)
class Job:
    """What all variants of one model share.

    Attributes:
        model: Preset name.
        height: Rows of the image.
        width: Columns of the image.
        threads: CPU threads.
        top_k: Keys per query, for SemanIR.
        changes: Further hyper-parameters that replace the preset's.
    """

    model: str
    height: int
    width: int
    threads: int
    top_k: int = 128
    changes: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass
class Row:
    """One variant's results; `problem` says why there are none."""

    model: str
    variant: str
    problem: str = ""
    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    psnr: float | None = None
    export_seconds: float | None = None
    nodes: int | None = None
    inlined_nodes: int | None = None


# ---- in child processes ----


def network(job: Job, plain: bool) -> Any:
    """The folded network with random weights."""
    from agileir_export.models import build_preset, find_preset, fold, randomise, use_operators

    family, _ = find_preset(job.model)
    changes = {**job.changes, **({"top_k": job.top_k} if "top_k" in family.options else {})}
    model = build_preset(job.model, **changes)
    randomise(model, 0)
    folded = fold(model)
    use_operators(folded, not plain)
    return folded


def image(job: Job) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Blurred noise: neighbours resemble each other as in a picture. Sides are rounded up to the model's multiple."""
    model = network(job, plain=True)
    multiple = model.spec.pad_multiple
    height, width = (side + -side % multiple for side in (job.height, job.width))
    noise = np.random.default_rng(0).random((1, model.spec.channels, height + 4, width + 4))
    blurred = sum(noise[..., i : i + height, j : j + width] for i in range(5) for j in range(5)) / 25
    return np.ascontiguousarray(blurred, np.float32)


def export(job: Job, variant: str, path: str) -> dict[str, Any]:
    """Writes the file of an ONNX variant; returns time and node counts."""
    import logging

    import onnx
    import onnx.inliner
    import torch

    from agileir_export.export import DEFAULT_OPSET, export_onnx

    torch.set_num_threads(job.threads)
    model, example = network(job, plain=variant != OURS), torch.from_numpy(image(job))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    if variant == OURS:
        export_onnx(model, path)
    else:
        model.forward = model.network  # the same graph as ours: without padding and cropping
        options: dict[str, Any] = {"dynamo": variant == DYNAMO, "opset_version": DEFAULT_OPSET, "verbose": False}
        with torch.no_grad():
            torch.onnx.export(model, (example,), path, **options)
    seconds = time.perf_counter() - start
    written = onnx.load(path)
    inlined = onnx.inliner.inline_local_functions(written)
    return {"export_seconds": seconds, "nodes": len(written.graph.node), "inlined_nodes": len(inlined.graph.node)}


def prepare(job: Job, variant: str, path: str) -> Callable[[], Any]:
    """The inference of a variant, ready to be called."""
    pixels = image(job)
    if variant in (DYNAMO, SCRIPT, OURS):
        from agileir_export.engines import create_session

        session = create_session(path, job.threads)
        feed = {session.get_inputs()[0].name: pixels}
        return lambda: session.run(None, feed)[0]
    import torch

    torch.set_num_threads(job.threads)
    run, images = network(job, plain=True).network, torch.from_numpy(pixels)
    if variant == COMPILED:
        run = torch.compile(run)

    def infer() -> Any:
        with torch.inference_mode():
            return run(images).numpy()

    return infer


def resident(name: str = "VmRSS") -> int | None:
    """A figure of /proc/self/status in bytes, None where there is no such file."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def peak_of(call: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a call, and the rise of resident memory during it (bytes)."""
    before = resident()
    if before is None:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        result = call()
        return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from VmRSS (Linux, proc(5))
    result = call()
    return result, max((resident("VmHWM") or before) - before, 0)


def serve(connection: Connection, job: Job, variant: str, path: str) -> None:
    """A variant's process: first inference, then one timed inference for every request."""
    try:
        infer = prepare(job, variant, path)
        if variant == COMPILED:
            warnings.simplefilter("ignore")
            infer()
        output, peak = peak_of(infer)
        connection.send((output, peak))
        while connection.recv():
            start = time.perf_counter()
            infer()
            connection.send(time.perf_counter() - start)
    except EOFError:  # the parent is gone
        return
    except Exception as error:
        connection.send(reason(error))


def export_apart(connection: Connection, job: Job, variant: str, path: str) -> None:
    """`export` in a process of its own, so that its memory is not counted as the inference's."""
    try:
        connection.send(export(job, variant, path))
    except Exception as error:
        connection.send(reason(error))


def reason(error: BaseException) -> str:
    """An exception as one line of bounded length."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 400 else f"{text[:397]}..."


# ---- in the parent process ----


class Worker:
    """A child process and the line to it; answers that are texts, and a closed line, are problems."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=target, args=(other, *arguments))
        self.process.start()
        other.close()

    def answer(self) -> Any:
        """The next message; a text where the process ended."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return f"the process ended with exit code {self.process.exitcode}"

    def ask(self) -> Any:
        """Requests one inference."""
        try:
            self.connection.send(True)
        except (BrokenPipeError, ConnectionResetError):
            self.process.join()
            return f"the process ended with exit code {self.process.exitcode}"
        return self.answer()

    def stop(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self.connection.send(False)
        self.connection.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def psnr(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """PSNR in dB for a peak of 1; inf where equal."""
    error = float(np.mean((actual.astype(np.float64) - expected) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def say(text: str) -> None:
    """Progress goes to the standard error stream."""
    print(text, file=sys.stderr, flush=True)


def measure(job: Job, rounds: int) -> list[Row]:
    """All variants of one model."""
    rows = {variant: Row(job.model, variant) for variant in VARIANTS}
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            expected = None
            for number, (variant, row) in enumerate(rows.items()):
                path = str(Path(folder, f"{number}.onnx"))
                say(f"{job.model}: {variant} ...")
                if variant in (DYNAMO, SCRIPT, OURS):
                    exporting = Worker(export_apart, job, variant, path)
                    facts = exporting.answer()
                    exporting.stop()
                    if isinstance(facts, str):
                        row.problem = f"export failed: {facts}"
                        continue
                    for name, value in facts.items():
                        setattr(row, name, value)
                worker = workers[variant] = Worker(serve, job, variant, path)
                first = worker.answer()
                if isinstance(first, str):
                    row.problem = first
                    continue
                output, row.peak = first
                expected = output if expected is None else expected
                if output.shape != expected.shape:
                    row.problem = f"another output: {list(output.shape)} instead of {list(expected.shape)}"
                    continue
                row.psnr = psnr(output, expected)
                if not row.psnr >= AGREEMENT:
                    row.problem = f"another output: {row.psnr:.1f} dB from torch eager's"
            running = [variant for variant in workers if not rows[variant].problem]
            for number in range(-1, rounds):  # round -1 warms up
                for variant in rotated(running, number):
                    seconds = workers[variant].ask()
                    if isinstance(seconds, str):
                        rows[variant].problem = seconds
                        running = [each for each in running if each != variant]
                    elif number >= 0:
                        rows[variant].seconds.append(seconds)
                say(f"{job.model}: round {number + 1} of {rounds}")
        finally:
            for worker in workers.values():
                worker.stop()
    return list(rows.values())


def rotated(variants: Sequence[str], number: int) -> list[str]:
    """Another order for every round, so that no variant always follows the same other one."""
    if not variants:
        return []
    start = number % len(variants)
    order = [*variants[start:], *variants[:start]]
    return order if (number // len(variants)) % 2 == 0 else order[::-1]


def speeds(rows: Sequence[Row]) -> dict[str, float]:
    """Median over rounds of torch eager's time over the variant's, above 1 where the variant is faster."""
    (eager,) = [row for row in rows if row.variant == EAGER]
    if eager.problem:
        return {}
    return {
        row.variant: statistics.median(a / b for a, b in zip(eager.seconds, row.seconds, strict=True))
        for row in rows
        if row.seconds and not row.problem
    }


def table(rows: Sequence[Row]) -> str:
    """The results of one model in Markdown."""
    ratio = speeds(rows)
    lines = [
        "| variant | median ms | speed | peak MiB | nodes | inlined | export s | PSNR dB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if row.problem:
            lines.append(f"| {row.variant} | {row.problem.replace('|', '/')} |" + " |" * 6)
            continue
        cells = [
            f"{statistics.median(row.seconds) * 1000:.1f}",
            f"{ratio[row.variant]:.2f}" if row.variant in ratio else "",
            "" if row.peak is None else f"{row.peak / MIB:.0f}",
            "" if row.nodes is None else str(row.nodes),
            "" if row.inlined_nodes is None else str(row.inlined_nodes),
            "" if row.export_seconds is None else f"{row.export_seconds:.1f}",
            "" if row.psnr is None or row.variant == EAGER else f"{row.psnr:.0f}",
        ]
        lines.append(f"| {row.variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def size(text: str) -> tuple[int, int]:
    """``"64"`` or ``"48x64"`` (height x width) as two whole numbers >= 1."""
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor HxW")
    return int(found[1]), int(found[2] or found[1])


def natural(text: str) -> int:
    """A whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table for every model, and writes the results."""
    parser = argparse.ArgumentParser(description="CPU inference of our exports against PyTorch and plain exports.")
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), metavar="PRESET", help="presets (%(default)s)")
    add("--size", type=size, default=(64, 64), metavar="HxW", help="pixels, rounded up to the window (64x64)")
    add("--rounds", type=natural, default=15, help="timed rounds (%(default)s)")
    add("--threads", type=natural, default=os.cpu_count() or 1, help="CPU threads (%(default)s)")
    add("--top-k", type=natural, default=128, help="keys per query of SemanIR (%(default)s)")
    add("--json", type=Path, help="file for all results")
    options = parser.parse_args(arguments)
    facts = {**surroundings(PACKAGES), "threads": options.threads, "system": platform.platform()}
    height, width = options.size
    facts |= {"height": height, "width": width, "rounds": options.rounds, "top_k": options.top_k, "results": []}
    print(f"{facts['date']}, {facts['cpu']}, {facts['threads']} threads, {height}x{width} pixels")
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    for name in options.models:
        rows = measure(Job(name, height, width, options.threads, options.top_k), options.rounds)
        ratio = speeds(rows)
        facts["results"] += [asdict(row) | {"speed": ratio.get(row.variant)} for row in rows]
        print(f"\n{name}\n\n{table(rows)}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
