"""INT8 files of the packaged models: what they lose in dB, by calibration method, and their speed on the CPU.

Usage (from the root of the repository, with the package installed)::

    python benchmarks/int8.py --calibration DATA/train --test DATA --json int8.json

Every packaged model is exported, calibrated on the folder of training images with each method (`agileir_export.calib`:
ranges on 64 crops, everything decided on held-out images of that folder and on the packaged samples), and only then
measured on the benchmark folders below DATA: ``test/Set5`` and ``test/Set14`` for super-resolution (Y PSNR), and
``real/CBSD68`` for denoising (RGB PSNR), laid out as ``tools/evaluate.py`` says. The first method is measured with
float16 outside the layers, too (rounded as a GPU rounds).

The speed is ONNX Runtime's on the CPU, as it is: INT8 is made for GPUs. Sessions of float32 and INT8 take turns, and
the figure is the median over rounds of float32's time over INT8's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from surroundings import surroundings

from agileir_export.calib import METHODS, CalibrationOptions, CalibrationReport, calibrate
from agileir_export.engines import OnnxRuntimeRunner, create_session
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.images.files import list_images
from agileir_export.models import load_model
from agileir_export.parity.task import task_metric

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from evaluate import denoising_pairs, super_resolution_pairs

MODELS = ("agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_x2", "semanir_tiny_dn25")
PACKAGES = ("onnxruntime", "onnx", "numpy", "torch", "agileir-export")

Pair = tuple[str, Any, Any]


def say(text: str) -> None:
    """Progress goes to the standard error stream."""
    print(text, file=sys.stderr, flush=True)


def benchmark_pairs(artifact: OnnxArtifact, test: Path) -> Iterator[tuple[str, list[Pair]]]:
    """Name and pairs (name, input, truth) of every benchmark folder that fits the model's task."""
    spec = artifact.spec
    if spec.task == "denoising":
        sigma = spec.noise_level or 0.0
        pairs = denoising_pairs(test / "real" / "CBSD68", sigma, 0, eight_bit=False, grey=spec.channels == 1)
        yield "CBSD68", list(pairs)
        return
    for name in ("Set5", "Set14"):
        yield name, list(super_resolution_pairs(test / "test" / name, spec.scale))


def scores(artifact: OnnxArtifact, pairs: Sequence[Pair]) -> list[float]:
    """The task's metric in dB, image by image."""
    runner, metric = OnnxRuntimeRunner(artifact), task_metric(artifact.spec)
    return [metric(truth, runner.run(given[None])[0]) for _, given, truth in pairs]


def losses(
    reference: dict[str, list[float]], artifact: OnnxArtifact, benchmarks: dict[str, list[Pair]]
) -> dict[str, dict[str, Any]]:
    """What a file loses on every benchmark: means and the worst image."""
    found: dict[str, dict[str, Any]] = {}
    for name, pairs in benchmarks.items():
        quantised = scores(artifact, pairs)
        each = [a - b for a, b in zip(reference[name], quantised, strict=True)]
        worst = int(np.argmax(each))
        found[name] = {
            "float32": statistics.fmean(reference[name]),
            "int8": statistics.fmean(quantised),
            "loss": statistics.fmean(each),
            "worst_loss": each[worst],
            "worst_image": pairs[worst][0],
        }
    return found


def speed(float_file: Path, int8_file: Path, channels: int, side: int, rounds: int, threads: int) -> dict[str, Any]:
    """Times of both files, taken in turns."""
    sessions = [create_session(str(path), threads) for path in (float_file, int8_file)]
    image = np.random.default_rng(0).random((1, channels, side, side), np.float32)
    times: list[list[float]] = [[], []]
    for number in range(-1, rounds):  # round -1 warms up
        for index in (0, 1) if number % 2 else (1, 0):
            started = time.perf_counter()
            sessions[index].run(None, {sessions[index].get_inputs()[0].name: image})
            if number >= 0:
                times[index].append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return {
        "side": side,
        "float32_ms": 1000 * statistics.median(times[0]),
        "int8_ms": 1000 * statistics.median(times[1]),
        "speed": statistics.median(ratios),
    }


def described(report: CalibrationReport) -> dict[str, Any]:
    """The figures of a calibration, without its thresholds."""
    told = report.to_json()
    left_out = ("recipe", "layers")
    floats = [layer["name"] for layer in told["layers"] if layer["decision"] != "int8"]
    return {
        **{name: value for name, value in told.items() if name not in left_out},
        "method": report.recipe.method,
        "equalised_kept": bool(report.recipe.equalisations),
        "int8_layers": len(report.recipe.int8),
        "float_layers": floats,
        "costs": [layer for layer in told["layers"] if layer["alone"] is not None],
    }


def measure(name: str, options: argparse.Namespace, cache: Path) -> list[dict[str, Any]]:
    """All methods on one model."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = export_onnx(load_model(name), Path(folder, "float32.onnx"), source={"model": name})
        benchmarks = dict(benchmark_pairs(source, options.test))
        reference = {key: scores(source, pairs) for key, pairs in benchmarks.items()}
        variants = [(method, "float32") for method in options.methods] + [(options.methods[0], "float16")]
        for method, rest in variants:
            say(f"{name}: {method}, rest {rest}")
            first = (method, rest) == variants[0]
            how = CalibrationOptions(method=method, rest=rest, every_layer=first and options.every_layer)
            path = Path(folder, f"{method}.{rest}.onnx")
            artifact, report = calibrate(
                source, path, ground_truth=options.calibration, options=how, cache=cache, progress=tell
            )
            row = {"model": name, "rest": rest, **described(report), "bytes": path.stat().st_size}
            row["float32_bytes"] = source.path.stat().st_size
            row["benchmarks"] = losses(reference, artifact, benchmarks)
            if first:
                side = max(options.side, source.spec.pad_multiple)
                row["cpu"] = speed(source.path, path, source.spec.channels, side, options.rounds, options.threads)
            rows.append(row)
    return rows


def tell(step: str, done: int, total: int) -> None:
    """A line a step."""
    if done <= 1:
        say(f"  {step}")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results of one model in Markdown."""
    lines = [
        "| method | rest | INT8 of all | outside operators | equalised | benchmark | float32 | INT8 | loss | worst |",
        "|---|---|--:|--:|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        for name, found in row["benchmarks"].items():
            cells = [
                row["method"],
                row["rest"],
                f"{row['share']:.1%}",
                f"{row['share_outside_operators']:.1%}",
                "yes" if row["equalised_kept"] else "no",
                name,
                f"{found['float32']:.3f}",
                f"{found['int8']:.3f}",
                f"{found['loss']:.4f}",
                f"{found['worst_loss']:.4f} ({found['worst_image']})",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table for every model, and writes the results."""
    parser = argparse.ArgumentParser(description="INT8 files of the packaged models: dB and CPU speed.")
    add = parser.add_argument
    add("--calibration", type=Path, required=True, nargs="+", metavar="PATH", help="training images: files or folders")
    add("--test", type=Path, required=True, metavar="DATA", help="folder of the benchmarks; nothing is decided on them")
    add("--models", nargs="+", default=list(MODELS), metavar="MODEL", help="packaged models (%(default)s)")
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="calibration methods (%(default)s)")
    add("--every-layer", action="store_true", help="with the first method, measure the cost of each layer alone")
    add("--side", type=int, default=96, help="pixels of the image for the speed (%(default)s)")
    add("--rounds", type=int, default=21, help="timed rounds (%(default)s)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads for the speed (%(default)s)")
    add("--json", type=Path, help="file for all results")
    options = parser.parse_args(arguments)
    facts = {**surroundings(PACKAGES), "threads": options.threads, "rounds": options.rounds}
    facts |= {"calibration_images": len(list_images(options.calibration)), "results": []}
    with tempfile.TemporaryDirectory() as cache:
        for name in options.models:
            rows = measure(name, options, Path(cache))
            facts["results"] += rows
            print(f"\n{name}\n\n{table(rows)}", flush=True)
            if cpu := rows[0].get("cpu"):
                print(
                    f"\nCPU, {cpu['side']}x{cpu['side']}: float32 {cpu['float32_ms']:.1f} ms, "
                    f"INT8 {cpu['int8_ms']:.1f} ms, speed {cpu['speed']:.2f}",
                    flush=True,
                )
            if options.json:
                options.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
