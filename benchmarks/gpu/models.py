"""Whole presets on a GPU: ordinary torch functions ("stock") against the operators ("fused"), in three precisions.

Usage, from any folder, with PyTorch (and the Triton it brings) and numpy installed::

    python benchmarks/gpu/models.py --out benchmarks/results/models.json

Weights are random: time and memory do not depend on them. The times are medians of CUDA-event timings of single
forward passes. It ends within five minutes; what the time budget does not allow is marked skipped in the JSON, and can
be done with ``--resume``. Exit code 1: a variant failed, or the two results differ; the others were measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measuring
from record import Record

PRESETS = ("agileir_x2", "agileir_light_x2", "swinir_classical_x2", "semanir_s_x2")
SIZES = ((360, 640), (64, 64))
DTYPES = ("float32", "float16", "bfloat16")
LARGEST_ERROR = {"float32": 1e-2, "float16": 2e-1, "bfloat16": 1.0}
"""Relative error beyond which the fused model is called wrong: dozens of layers, and chosen keys that may change."""


def parse(given: Sequence[str] | None = None) -> Any:
    """The options."""
    parser = measuring.arguments(__doc__.splitlines()[0], "benchmarks/results/models.json")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help="model presets")
    options = parser.parse_args(given)
    options.sizes = options.sizes or list(SIZES)
    options.dtypes = options.dtypes or list(DTYPES)
    return options


def compared(stock: dict[str, Any], fused: dict[str, Any]) -> dict[str, float]:
    """How many times faster and smaller the fused model is, where both were measured."""
    answer = {}
    if "median_ms" in stock and "median_ms" in fused:
        answer["speedup"] = stock["median_ms"] / fused["median_ms"]
    if stock.get("peak_bytes") and fused.get("peak_bytes"):
        answer["memory_ratio"] = fused["peak_bytes"] / stock["peak_bytes"]
    return answer


def measured(
    record: Record, build: Callable[[], Any], preset: str, picture: tuple[int, int], dtype: str, deadline: float
) -> None:
    """Both forms of the model that `build` makes, at one size in one tensor type."""
    import torch

    from agileir_export.models import use_operators

    row = record.row(preset=preset, dtype=dtype, picture=[*picture])
    forms = {"fused": True, "stock": False}
    images: list[Any] = []

    def result(fused: bool) -> Any:
        model = build()  # here, where an error costs this variant only
        if not images:
            generator = torch.Generator(record.device).manual_seed(0)
            drawn = torch.rand(1, model.spec.channels, *picture, generator=generator, device=record.device)
            images.append(drawn.to(getattr(torch, dtype)))
        use_operators(model, fused)
        return model(images[0])

    def measurement(fused: bool) -> dict[str, Any]:
        return measuring.attempt(partial(result, fused), record.device, deadline)

    done = [record.measure(row, name, partial(measurement, fused)) for name, fused in forms.items()]
    if all(done) and images:
        row |= compared(row["variants"]["stock"], row["variants"]["fused"])
        record.compare(row, LARGEST_ERROR[dtype], lambda: {"relative_error": apart(result(True), result(False))})


def built(preset: str, device: str, dtype: str) -> Any:
    """A preset with random weights."""
    import torch

    from agileir_export.models import build_preset

    torch.manual_seed(0)
    return build_preset(preset).eval().to(device, getattr(torch, dtype))


def apart(result: Any, expected: Any) -> float:
    """Relative error of a result."""
    return float((result.float() - expected.float()).norm() / expected.float().norm())


def main(given: Sequence[str] | None = None) -> int:
    """Measures and writes the JSON."""
    options = parse(given)
    deadline = time.monotonic() + options.budget
    measuring.find_package()
    import torch

    if problem := measuring.no_gpu(options.device):
        print(f"error: {problem}", file=sys.stderr)
        return 4
    head = {"benchmark": "models", **measuring.machine(options.device)}
    record = Record(options.out, head, options.device, options.resume)
    try:
        with torch.inference_mode():
            for dtype in sorted(options.dtypes, key=lambda each: each != "float16"):
                for preset in options.presets:
                    build = cache(partial(built, preset, options.device, dtype))
                    for picture in options.sizes:
                        measured(record, build, preset, picture, dtype, deadline)
    except measuring.ContextLost:
        measuring.start_again(deadline)
    return record.finish()


if __name__ == "__main__":
    sys.exit(main())
