"""Engine builds: the exported file with its function bodies against a plain export of the same network, TensorRT-RTX.

Usage (from the root of the repository, with the package and the TensorRT-RTX wheels installed)::

    python benchmarks/build.py --json build.json

Two files of one folded network with the same weights, packaged or random, and two ways to build one of them:

* ours: `export_onnx`, operators as single nodes with function bodies, which `inline_operators` writes out before the
  parser sees them, as ``agileir-export trt`` does; its time counts;
* ours, as written: the same file, left to the parser;
* plain: the same network in ordinary torch functions, without our operators, through ``torch.onnx.export``.

``--precision float16`` builds both in half precision, by the same conversion (`convert_precision`), which keeps the
softmax of our operators in float32.

Both leave batch, height and width free, and both are built for one profile of one image. TensorRT-RTX needs no GPU for
that. Every build is a process of its own, and one works at a time: a round builds each once, in an order that
changes from round to round. A first build of each, not timed, lists the engine's layers from the builder's
verbose log; "kernels" are the layers that compute, without waits, signals and the handling of shapes.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from surroundings import surroundings

from agileir_export.version import RTX_PACKAGES

OURS, WRITTEN, PLAIN = VARIANTS = ("ours", "ours, as written", "plain")
MODELS = (
    "agileir_tiny_x2",
    "semanir_tiny_dn25",
    "swinir_light_x2",
    "semanir_s_x2",
    "agileir_lightest_x2",
)
NO_KERNELS = {"signal", "wait", "ShapeHostToDevice", "shape_call"}
PRECISIONS = ("float32", "float16")
SIDES = (64, 128, 512)
"""Smallest, usual and largest side of the profile's image, in pixels."""

PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", RTX_PACKAGES[0], "agileir-export")
LIMIT = 3600.0


@dataclass
class Row:
    """One file's results; `problem` says why there are none."""

    model: str
    variant: str
    problem: str = ""
    export_seconds: float | None = None
    nodes: int | None = None
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    plan_bytes: int | None = None
    peak_bytes: int | None = None
    network_layers: int | None = None
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def kernels(self) -> int:
        """Layers of the engine that compute."""
        return sum(count for kind, count in self.kinds.items() if kind.split()[0] not in NO_KERNELS)


# ---- in child processes ----


def export(name: str, variant: str, top_k: int, precision: str, path: str) -> dict[str, Any]:
    """Writes one file; returns the time that took."""
    import logging
    import warnings

    import onnx
    import torch

    from agileir_export.export import DEFAULT_OPSET, export_onnx
    from agileir_export.export.precision import convert_precision
    from agileir_export.models import (
        build_preset,
        find_preset,
        fold,
        load_model,
        packaged_models,
        randomise,
        use_operators,
    )

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    family, _ = find_preset(name)
    if name in packaged_models():
        model = load_model(name)
    else:
        model = build_preset(name, **({"top_k": top_k} if "top_k" in family.options else {}))
        randomise(model, 0)
    start = time.perf_counter()
    if variant != PLAIN:
        export_onnx(model, path)
    else:
        folded, multiple = fold(model), model.spec.pad_multiple
        use_operators(folded, False)
        folded.forward = folded.network  # type: ignore[method-assign]  # the graph of ours: no padding, no cropping
        free = {axis: torch.export.Dim(side, min=1) for axis, side in ((0, "batch"), (2, "rows"), (3, "columns"))}
        free |= {axis: multiple * free[axis] for axis in (2, 3)}
        example = torch.zeros(2, model.spec.channels, 3 * multiple, 2 * multiple)
        options: dict[str, Any] = {"dynamo": True, "opset_version": DEFAULT_OPSET, "verbose": False}
        with torch.no_grad():
            torch.onnx.export(folded, (example,), path, dynamic_shapes=(free,), **options)
    if precision != PRECISIONS[0]:
        onnx.save(convert_precision(onnx.load(path), precision), path)
    return {"export_seconds": time.perf_counter() - start}


def build(path: str, variant: str, target: str, listed: bool) -> dict[str, Any]:
    """Builds one engine; with `listed`, returns what it consists of, else how long it took."""
    import resource

    import tensorrt_rtx_bindings as trt

    messages: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR or message.startswith("Layers:"):
                messages.append(message)

    logger = Log() if listed else trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    start, start_cpu = time.perf_counter(), time.process_time()
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parse(parser, path, variant):
        raise RuntimeError("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if listed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the log then lists the layers of the engine
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)
    image, profile = network.get_input(0), builder.create_optimization_profile()
    profile.set_shape(image.name, *((1, image.shape[1], side, side) for side in SIDES))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    if plan is None:
        raise RuntimeError("; ".join(messages) or "TensorRT-RTX returned no engine")
    if not listed:
        return {"seconds": seconds, "cpu_seconds": cpu_seconds}
    return {
        "plan_bytes": plan.nbytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "network_layers": network.num_layers,
        "kinds": kinds_of("\n".join(messages)),
    }


def parse(parser: Any, path: str, variant: str) -> bool:
    """Reads a file into the parser's network."""
    if variant != OURS:
        return bool(parser.parse_from_file(path))
    import onnx

    from agileir_export.engines.building.inlining import inline_operators

    return bool(parser.parse(inline_operators(onnx.load(path)).SerializeToString(), path))


def kinds_of(log: str) -> dict[str, int]:
    """Layers of an engine by kind and number type, off the list in a verbose build's log."""
    layers = collections.Counter(
        f"{kind} {number or '-'}"
        for line in log.splitlines()
        if line.startswith("Name:")
        for kind in re.findall(r"LayerType: (\w+)", line)[:1]
        for number in (re.findall(r"Datatype: (\w+)", line) or [""])[:1]
    )
    return dict(layers.most_common())


# ---- in the parent process ----


def apart(*arguments: str) -> dict[str, Any]:
    """Runs this script's ``--child`` in a process of its own; a dictionary with ``problem`` where it failed."""
    command = [sys.executable, __file__, "--child", *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"problem": f"not finished after {LIMIT:.0f} s"}
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
        return {"problem": lines[-1][:400]}
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def nodes_of(path: Path) -> int:
    """Nodes of an ONNX file's main graph."""
    import onnx

    return len(onnx.load(path, load_external_data=False).graph.node)


def measure(name: str, rounds: int, target: str, top_k: int, precision: str, folder: Path) -> list[Row]:
    """All ways of one model; files that `folder` already holds are not exported again."""
    rows = [Row(name, variant) for variant in VARIANTS]
    for row in rows:
        path = path_of(folder, row, precision)
        say(f"{name}: {row.variant} ...")
        if not path.exists():
            take(row, apart("export", name, row.variant, str(top_k), precision, str(path)))
        if not row.problem:
            row.nodes = nodes_of(path)
            take(row, apart("list", str(path), row.variant, target))
    for number in range(rounds):
        for row in rows if number % 2 == 0 else reversed(rows):
            if not row.problem:
                times = apart("build", str(path_of(folder, row, precision)), row.variant, target)
                row.problem = times.get("problem", "")
                if not row.problem:
                    row.seconds.append(times["seconds"])
                    row.cpu_seconds.append(times["cpu_seconds"])
        say(f"{name}: round {number + 1} of {rounds}")
    return rows


def path_of(folder: Path, row: Row, precision: str) -> Path:
    """The file of a row; two of them share one."""
    return folder / f"{row.model}.{row.variant.partition(',')[0]}.{precision}.onnx"


def take(row: Row, facts: dict[str, Any]) -> None:
    """Facts into their fields."""
    for name, value in facts.items():
        setattr(row, name, value)


def say(text: str) -> None:
    """Progress goes to the standard error stream."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Results in Markdown; times are medians over rounds."""
    lines = [
        "| model | file | kernels | build s | CPU s | network layers | plan MB | ONNX nodes |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if row.problem:
            lines.append(f"| {row.model} | {row.variant} | {row.problem.replace('|', '/')} |" + " |" * 5)
            continue
        cells = [
            str(row.kernels),
            f"{statistics.median(row.seconds):.1f}" if row.seconds else "",
            f"{statistics.median(row.cpu_seconds):.1f}" if row.cpu_seconds else "",
            str(row.network_layers),
            "" if row.plan_bytes is None else f"{row.plan_bytes / 1e6:.1f}",
            "" if row.nodes is None else str(row.nodes),
        ]
        lines.append(f"| {row.model} | {row.variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(rows: Sequence[Row]) -> str:
    """Each of ours over plain in kernels and build time, a line each."""
    *ours, plain = rows
    return "\n".join(ratio(row, plain) for row in ours)


def ratio(row: Row, plain: Row) -> str:
    """One over plain, in one sentence."""
    if row.problem or plain.problem:
        return f"{row.model}: {row.variant}: no comparison"
    text = f"{row.model}: {row.variant} / plain: kernels {row.kernels / plain.kernels:.2f}"
    if row.seconds and plain.seconds:
        for name, pairs in (
            ("build time", zip(row.seconds, plain.seconds, strict=True)),
            ("CPU time", zip(row.cpu_seconds, plain.cpu_seconds, strict=True)),
        ):
            text += f", {name} {statistics.median(a / b for a, b in pairs):.2f}"
    return text


def child(arguments: Sequence[str]) -> dict[str, Any]:
    """A child's work: ``export NAME VARIANT TOP_K PRECISION PATH``, ``list|build PATH VARIANT TARGET``."""
    verb, *rest = arguments
    if verb == "export":
        name, variant, top_k, precision, path = rest
        return export(name, variant, int(top_k), precision, path)
    return build(*rest, listed=verb == "list")


def natural(text: str) -> int:
    """A whole number >= 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and the ratios, and writes the results."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["--child"]:
        print(json.dumps(child(arguments[1:])))
        return 0
    parser = argparse.ArgumentParser(description="TensorRT-RTX builds of our exports against plain exports.")
    add = parser.add_argument
    add("--presets", nargs="+", default=list(MODELS), metavar="PRESET", help="presets (%(default)s)")
    add("--target", default="sm89", help="compute capability to build for (%(default)s)")
    add("--rounds", type=natural, default=3, help="timed builds of each file (%(default)s)")
    add("--top-k", type=natural, default=128, help="keys per query of a SemanIR preset (%(default)s)")
    add("--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of both files (%(default)s)")
    add("--files", type=Path, help="folder that keeps the exported files and lends those it has (none are kept)")
    add("--json", type=Path, help="file for all results")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        say(f"The wheels {' and '.join(RTX_PACKAGES)} are not installed.")
        return 4
    facts = surroundings(PACKAGES) | {"target": options.target, "sides": SIDES, "top_k": options.top_k, "results": []}
    facts["precision"] = options.precision
    print(f"{facts['date']}, {facts['cpu']}, {', '.join(f'{n} {v}' for n, v in facts['versions'].items())}")
    everything: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.presets:
            rows = measure(name, options.rounds, options.target, options.top_k, options.precision, folder)
            everything += rows
            facts["results"] += [asdict(row) | {"kernels": row.kernels} for row in rows]
            print(ratios(rows), flush=True)
            if options.json:
                options.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\n{table(everything)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
