"""OpenVINO against ONNX Runtime on a CPU: time and agreement, in float32 and INT8.

Usage (from the root of the repository, with the package and OpenVINO installed)::

    python benchmarks/runtimes.py --json runtimes.json

Every packaged model is exported, and calibrated on the packaged samples. Then all variants run in turns on the same
random image, and the least time of each counts: with one thread the processor's time, so that what else runs on the
machine matters little, with more of them the time that passes. Agreement is PSNR against ONNX Runtime in float32. *as
it comes* is OpenVINO without our setting of its precision: on processors with bfloat16 it computes a float32 file in
that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from surroundings import surroundings

from agileir_export.calib import CalibrationOptions, calibrate
from agileir_export.engines import OnnxRuntimeRunner, OpenVinoRunner, Runner
from agileir_export.engines.openvino.runner import SETTINGS
from agileir_export.export import OnnxArtifact, export_onnx, read_artifact
from agileir_export.models import load_model
from agileir_export.parity import json_number, psnr

MODELS = ("agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_x2", "semanir_tiny_dn25")
REFERENCE = "onnxruntime float32"
VARIANTS = (REFERENCE, "openvino float32", "openvino as it comes", "onnxruntime int8", "openvino int8")
PACKAGES = ("onnxruntime", "openvino", "onnx", "numpy", "agileir-export")


def runners(source: OnnxArtifact, int8: OnnxArtifact, threads: int) -> dict[str, Runner]:
    """Every variant of a model."""
    made = [OnnxRuntimeRunner(source, threads), OpenVinoRunner(source, threads)]
    with mock.patch.dict(SETTINGS):
        del SETTINGS["INFERENCE_PRECISION_HINT"]
        made.append(OpenVinoRunner(source, threads))
    return dict(zip(VARIANTS, [*made, OnnxRuntimeRunner(int8, threads), OpenVinoRunner(int8, threads)], strict=True))


def measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the table for one model."""
    source = export_onnx(load_model(name))
    if options.int8 is None:
        int8, _ = calibrate(source, options=CalibrationOptions(every_layer=False))
    else:
        int8 = read_artifact(options.int8 / f"{name}.int8.onnx")
    rows = []
    for threads in options.threads:
        variants = runners(source, int8, threads)
        for side in options.sides:
            image = np.random.default_rng(0).random((1, source.spec.channels, side, side), np.float32)
            outputs = {variant: runner.run(image) for variant, runner in variants.items()}
            times: dict[str, list[float]] = {variant: [] for variant in variants}
            clock = time.process_time if threads == 1 else time.perf_counter
            for _ in range(options.rounds):
                for variant, runner in variants.items():
                    started = clock()
                    runner.run(image)
                    times[variant].append(clock() - started)
            least = {variant: min(seconds) for variant, seconds in times.items()}
            found = {variant: psnr(outputs[REFERENCE], output) for variant, output in outputs.items()}
            rows.append(
                {
                    "model": name,
                    "threads": threads,
                    "side": side,
                    "seconds": least,
                    "ratio": {variant: seconds / least[REFERENCE] for variant, seconds in least.items()},
                    "psnr": {variant: json_number(value) for variant, value in found.items()},
                }
            )
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown table: the reference's time, and of the others the part of it that they take, and dB."""
    lines = [f"| model | threads | input | {' | '.join(VARIANTS)} |", f"|---|--:|--:|{'--:|' * len(VARIANTS)}"]
    for row in rows:
        cells = [f"{row['seconds'][REFERENCE] * 1000:.0f} ms"]
        cells += [f"{row['ratio'][variant]:.2f} ({float(row['psnr'][variant]):.0f} dB)" for variant in VARIANTS[1:]]
        lines.append(f"| {row['model']} | {row['threads']} | {row['side']}x{row['side']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description="OpenVINO's time over ONNX Runtime's on this CPU.")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--sides", nargs="+", type=int, default=(128, 256), help="pixels of the image's sides")
    parser.add_argument("--int8", type=Path, metavar="FOLDER", help="of files MODEL.int8.onnx, calibrated before")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for name in options.models:
        rows += measure(name, options)
        if options.json:
            facts = {
                **surroundings(PACKAGES),
                "rounds": options.rounds,
                "results": rows,
            }
            options.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
