"""Measures what of spandrel's networks works here, and writes the table of docs/coverage.md.

Every architecture is a checkpoint of random weights (tools/spandrel_networks.py), taken through what the command line
does: recognised, exported with free sizes or fixed ones, compared with PyTorch on real pictures in float32, float16 and
bfloat16, built and audited as an engine of TensorRT-RTX. Each runs in a process of its own with a time limit.

Usage::

    python tools/coverage.py [HAT DAT ...] [--real] [--jobs 2] [--output benchmarks/results/coverage.json]
    python tools/coverage.py --table benchmarks/results/coverage.json > docs/coverage.md
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agileir_export import BuildOptions, ConversionRequest, build_engine, load_model
from agileir_export.conversion import export, in_precision
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.engines.torch_runner import TorchRunner
from agileir_export.errors import AgileIRError
from agileir_export.export import OnnxArtifact
from agileir_export.export.floors import FLOORS
from agileir_export.models import Restorer
from agileir_export.parity import verification_images
from agileir_export.parity.conditioning import conditioned_floor, own_rounding
from agileir_export.parity.metrics import psnr

NETWORKS_SCRIPT = Path(__file__).with_name("spandrel_networks.py")
GPU = "sm89"
FLOATS = ("float32", "float16 (kept)", "bfloat16 (kept)")
TIME_LIMIT = 900
"""Seconds for one network."""

PACKAGES = ("agileir-export", "spandrel", "torch", "torchvision", "onnx", "onnxruntime", "tensorrt_rtx_cu13_bindings")


def measure(checkpoint: Path) -> Iterator[dict[str, Any]]:
    """What one network does, step by step: each is a part of the record, given as soon as it is known."""
    with timed() as seconds:
        model = load_model(checkpoint)
    spec = model.spec
    parameters = sum(each.numel() for each in model.parameters())
    facts = {"family": spec.family, "scale": spec.scale, "parameters": parameters, "multiple": spec.pad_multiple}
    yield {**facts, "loads": True, "tiling": spec.tiling, "load_seconds": seconds()}
    with timed() as seconds:
        artifact = export(model, ConversionRequest())
    side = artifact.fixed_sizes.get("height")
    yield {
        "sizes": f"{side}x{side}" if side else "free",
        "fixed_because": artifact.provenance.get("fixed_because", ""),
        "operators": artifact.operators,
        "nodes": artifact.nodes,
        "export_seconds": seconds(),
    }
    truths = Truths(model, artifact)
    reached = truths.quality(artifact)
    yield {"float32": reached}
    if reached < FLOORS["float32"] and (own := own_rounding(model, truths.images, truths.outputs)) is not None:
        yield {"float32_own": round(own, 1)}
    for precision in ("float16", "bfloat16"):
        try:
            half = in_precision(artifact, ConversionRequest(precision))
            kept = sum(each["count"] for each in half.conversion["float32_nodes"])
            yield {precision: truths.quality(half), f"{precision}_kept": kept}
        except AgileIRError as error:
            half = artifact
            yield {precision: None, f"{precision}_error": str(error)}
        if precision == "float16":
            yield engine(half)


def engine(artifact: OnnxArtifact) -> dict[str, Any]:
    """Builds and audits an engine; of a network that float16 does not hold, one in float32."""
    with tempfile.TemporaryDirectory() as folder, timed() as seconds:
        try:
            build_engine(artifact, Path(folder, "network.plan"), BuildOptions(target="rtx", gpus=(GPU,)))
        except AgileIRError as error:
            return {"engine": False, "engine_error": f"{error.code}: {error}"}
        return {"engine": True, "engine_precision": artifact.precision, "engine_seconds": seconds()}


class Truths:
    """What PyTorch makes of real pictures, for comparisons."""

    def __init__(self, model: Restorer, artifact: OnnxArtifact) -> None:
        reference = TorchRunner(model)
        self.images = [image.pixels[None] for image in verification_images(artifact)]
        self.outputs = [reference.run(pixels) for pixels in self.images]

    def quality(self, artifact: OnnxArtifact) -> float:
        """The dB of the worst picture, at most 200."""
        runner = OnnxRuntimeRunner(artifact)
        found = (psnr(out, runner.run(image)) for image, out in zip(self.images, self.outputs, strict=True))
        return round(min(200.0, *found), 1)


@contextmanager
def timed() -> Iterator[Any]:
    """Gives a function of the seconds since it was entered."""
    start = time.monotonic()
    yield lambda: round(time.monotonic() - start, 1)


def one(architecture: str, real: bool, record: Path) -> None:
    """Measures one architecture; the record is written after every step, so that nothing is lost with the process."""
    from spandrel_networks import make_state
    from torch import save

    logging.disable(logging.WARNING)
    known: dict[str, Any] = {"network": "published" if real else "small", "loads": False}

    def note(**facts: Any) -> None:
        known.update(facts)
        record.write_text(json.dumps(known), encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, f"{architecture}.pth")
        save(make_state(architecture, real=real), checkpoint)
        try:
            for facts in measure(checkpoint):
                note(**facts)
        except AgileIRError as error:
            note(error=f"{error.code}: {error}".replace(f"{folder}/", ""))


def one_apart(architecture: str, real: bool, limit: int = TIME_LIMIT) -> dict[str, Any]:
    """The record of one architecture, measured in a process of its own that may take so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record.json")
        command = [sys.executable, "-W", "ignore", __file__, "--one", architecture, "--record", str(record)]
        died = ""
        try:
            done = subprocess.run(
                command + ["--real"] * real, capture_output=True, text=True, timeout=limit, check=False
            )
            if done.returncode:
                died = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        except subprocess.TimeoutExpired:
            died = f"not done after {limit} seconds"
        found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {"loads": False}
    return found | ({"error": died} if died else {})


def works(record: dict[str, Any], precision: str) -> bool:
    """Whether a network holds the floor of a precision."""
    own = record.get(f"{precision}_own")
    return (record.get(precision) or 0.0) >= (FLOORS[precision] if own is None else conditioned_floor(own))


def table(measured: dict[str, Any]) -> str:
    """docs/coverage.md, from what was measured."""
    networks = measured["networks"]
    small = {name: record for name, record in networks.items() if "@" not in name}
    counts = {precision: sum(works(record, precision) for record in small.values()) for precision in FLOORS}
    built = sum(bool(record.get("engine")) for record in small.values())
    loaded = sum(record.get("loads", False) for record in small.values())
    held = ", ".join(
        f"{counts[name]} hold {FLOORS[name]:g} dB in {name}" for name in ("float32", "float16", "bfloat16")
    )
    lines = [
        "# Networks of spandrel: what works",
        "",
        "Made by `tools/coverage.py`, which says how; random weights, so no word on what a network restores. The first",
        "table has small networks of all architectures, the second networks of the published depth. dB are those of",
        "the worst of several real pictures, at sizes that were not traced where sizes are free. *Own* is what PyTorch",
        "in float32 is from float64, where that leaves less than the floor: such a network amplifies rounding, and its",
        "floor is 6 dB below that, 60 dB at least. *Kept* are nodes that stay in float32 because half precision was",
        "measured not to hold them. Engines are those of TensorRT-RTX in float16,",
        f"for {measured['gpu']}; they were built and audited, not run.",
        "",
        f"Of {len(small)} architectures {loaded} load, {held},",
        f"and {built} build an engine that passes the audit.",
        "",
    ]
    published = {name: record for name, record in networks.items() if "@" in name}
    for title, chosen in (("Small networks", small), ("Published depth", published)):
        if chosen:
            lines += [f"## {title}", "", *rows(chosen), ""]
    told = ", ".join(f"{name} {number}" for name, number in measured["versions"].items())
    lines += [wrapped(f"Measured on {measured['date']} with {told}."), ""]
    reasons = [*reasons_of(networks)]
    if reasons:
        lines += ["## Why not", "", *reasons, ""]
    return "\n".join(lines)


def wrapped(text: str, indent: str = "") -> str:
    """Prose as wide as the other pages'."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def rows(networks: dict[str, Any]) -> Iterator[str]:
    """One table."""
    columns = ("network", "scale", "parameters", "sizes", "operators", *FLOATS, "engine", "export")
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for name, r in sorted(networks.items(), key=lambda item: item[0].lower()):
        halves = [f"{db(r, p)} ({r.get(f'{p}_kept', '-')})" for p in ("float16", "bfloat16")]
        operators = sum(r.get("operators", {}).values()) or "-"
        built = f"{r['engine_seconds']:.0f} s" if r.get("engine") else "-"
        if built != "-" and r["engine_precision"] != "float16":
            built += f" ({r['engine_precision']})"
        export_time = f"{r['export_seconds']:.0f} s" if "export_seconds" in r else "-"
        cells = (
            name.partition("@")[0], f"x{r['scale']}" if "scale" in r else "-", f"{r.get('parameters', 0) / 1e6:.2f} M",
            r.get("sizes", "-"), operators, db(r, "float32"), *halves, built, export_time,
        )  # fmt: skip
        yield "| " + " | ".join(map(str, cells)) + " |"


def db(record: dict[str, Any], precision: str) -> str:
    """A quality as a cell."""
    value = record.get(precision)
    own = f" (own {record[f'{precision}_own']})" if f"{precision}_own" in record else ""
    return "-" if value is None else f"{value:.1f}{own}" if works(record, precision) else f"**{value:.1f}{own}**"


def reasons_of(networks: dict[str, Any]) -> Iterator[str]:
    """A line for every step that does not work."""
    for name, record in sorted(networks.items(), key=lambda item: item[0].lower()):
        shown = name.replace("@", ", ")
        for step in ("error", "fixed_because", "float16_error", "bfloat16_error", "engine_error"):
            if record.get(step):
                said = step.removesuffix("_error").replace("_because", " sizes").replace("error", "does not work")
                told = textwrap.shorten(record[step], 300, placeholder=" ...")
                yield wrapped(f"- **{shown}**, {said}: {told}", "  ")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", help="ids; all where none is named")
    parser.add_argument("--real", action="store_true", help="networks of the published depth")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--limit", type=int, default=TIME_LIMIT, help="seconds for one network [%(default)s]")
    parser.add_argument("--output", type=Path, help="JSON to write; what it holds of other networks stays")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print docs/coverage.md from measured results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.table:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))), end="")
        return
    if options.one:
        one(options.one, options.real, options.record)
        return
    from spandrel_networks import NETWORKS

    names = options.architectures or [n for n, entry in NETWORKS.items() if not options.real or entry.real is not None]
    measured: dict[str, Any] = {"networks": {}}
    if options.output and options.output.exists():
        measured = json.loads(options.output.read_text(encoding="utf-8"))
    measured |= {"date": time.strftime("%Y-%m-%d"), "gpu": GPU, "versions": {name: version(name) for name in PACKAGES}}
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, found in zip(
            names, pool.map(lambda name: one_apart(name, options.real, options.limit), names), strict=True
        ):
            measured["networks"][name + ("@published" if options.real else "")] = found
            print(json.dumps({name: found}), flush=True)
            if options.output:
                text = json.dumps(measured, indent=1, sort_keys=True) + "\n"
                options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
