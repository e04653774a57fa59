"""Whole presets on a GPU: ordinary torch functions ("stock") against the operators ("fused"), in three precisions.

Usage, from any folder, with PyTorch (and the Triton it brings) and numpy installed::

    python benchmarks/gpu/models.py --out benchmarks/results/models.json

Weights are random: time and memory do not depend on them. The times are medians of CUDA-event timings of single
forward passes. It ends within five minutes; what the time budget does not allow is marked skipped in the JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measuring

PRESETS = ("agileir_x2", "agileir_light_x2", "swinir_classical_x2", "semanir_s_x2")
SIZES = ((64, 64), (360, 640))
DTYPES = ("float32", "float16", "bfloat16")


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


def row(model: Any, preset: str, picture: tuple[int, int], dtype: str, device: str, deadline: float) -> dict[str, Any]:
    """Both forms of one model at one size in one tensor type."""
    import torch

    from agileir_export.models import use_operators

    images = torch.rand(1, model.spec.channels, *picture, device=device).to(getattr(torch, dtype))
    result: dict[str, Any] = {"preset": preset, "dtype": dtype, "picture": [*picture], "variants": {}}
    for name, use in (("fused", True), ("stock", False)):
        use_operators(model, use)
        result["variants"][name] = measuring.attempt(lambda: model(images), device, deadline)
    return result | compared(result["variants"]["stock"], result["variants"]["fused"])


def text(result: dict[str, Any]) -> str:
    """One line for the terminal."""
    parts = [
        f"{name} {found['median_ms']:.2f} ms" if "median_ms" in found else f"{name}: {next(iter(found.values()))}"
        for name, found in result["variants"].items()
    ]
    parts += [f"{key} {result[key]:.2f}" for key in ("speedup", "memory_ratio") if key in result]
    height, width = result["picture"]
    return f"{result['preset']} ({result['dtype']}, {width}x{height}): {', '.join(parts)}"


def main(given: Sequence[str] | None = None) -> int:
    """Measures and writes the JSON."""
    options = parse(given)
    deadline = time.monotonic() + options.budget
    measuring.find_package()
    import torch

    from agileir_export.models import build_preset

    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: no CUDA device was found; --device cpu tries the script out", file=sys.stderr)
        return 4
    document: dict[str, Any] = {"benchmark": "models", **measuring.machine(options.device), "rows": []}
    with torch.inference_mode():
        for dtype in sorted(options.dtypes, key=lambda each: each != "float16"):
            for preset in options.presets:
                model = build_preset(preset).eval().to(options.device, getattr(torch, dtype))
                for picture in options.sizes:
                    document["rows"].append(row(model, preset, picture, dtype, options.device, deadline))
                    print(text(document["rows"][-1]), flush=True)
                    measuring.write_json(options.out, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
