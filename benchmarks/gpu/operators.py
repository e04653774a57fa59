"""Each operator on a GPU: the kernel against plain torch, scaled_dot_product_attention, and torch.compile.

Usage, from any folder, with PyTorch (and the Triton it brings) and numpy installed::

    python benchmarks/gpu/operators.py --out benchmarks/results/operators.json

The times are medians of CUDA-event timings of single calls on tensors that are already on the device. Rates are what
the definition of the operator must move and compute (``plugins/cost.py``) divided by that time, for all variants
alike. It ends within five minutes; what the time budget does not allow is marked skipped in the JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measuring

VARIANTS = ("operator", "eager", "sdpa", "compiled")
SIZES = ((64, 64), (256, 256), (360, 640), (720, 1280))
COMPILED_SIZES = ((64, 64), (360, 640))
"""Sizes for torch.compile, which needs many seconds for each."""

LABELS = ("AgileIR", "AgileIR light", "SwinIR", "SemanIR")


def parse(given: Sequence[str] | None = None) -> Any:
    """The options."""
    parser = measuring.arguments(__doc__.splitlines()[0], "benchmarks/results/operators.json")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="presets (default: the large ones)")
    options = parser.parse_args(given)
    options.sizes = options.sizes or list(SIZES)
    options.dtypes = options.dtypes or ["float16"]
    return options


def variants(call: Any, tensors: Sequence[Any], wanted: Sequence[str], compiled: bool) -> dict[str, Callable[[], Any]]:
    """The functions to be timed, by name; without those that do not exist for the operator."""
    import formulations
    import torch

    made: dict[str, Callable[[], Any]] = {"operator": formulations.operator(call, tensors)}
    plain = formulations.eager(call)
    made["eager"] = lambda: plain(*tensors)
    attention = formulations.sdpa(call)
    if attention is not None:
        made["sdpa"] = lambda: attention(*tensors)
    if compiled and "compiled" in wanted:
        torch.compiler.reset()
        function = torch.compile(plain, dynamic=False)
        made["compiled"] = lambda: function(*tensors)
    return {name: function for name, function in made.items() if name in wanted}


def rates(found: dict[str, Any], work: Any) -> dict[str, Any]:
    """Adds the achieved rates to a measurement."""
    if "median_ms" not in found:
        return found
    seconds = found["median_ms"] / 1000
    return found | {
        "tb_per_s": work.bytes_moved / seconds / 1e12,
        "tflop_per_s": work.flops / seconds / 1e12,
    }


def row(call: Any, picture: tuple[int, int], dtype: str, options: Any, deadline: float) -> dict[str, Any]:
    """All variants of one call at one size (padded to whole windows) in one tensor type."""
    import formulations
    import torch

    from agileir_export.plugins.cost import cost

    window = call.attributes["window_size"]
    height, width = (-(-side // window) * window for side in picture)
    kind = getattr(torch, dtype)
    work = cost(call.operator, call.shapes(1, height, width), call.attributes, kind.itemsize)
    result: dict[str, Any] = {
        "operator": call.operator,
        "preset": call.label,
        "attributes": dict(call.attributes),
        "dtype": dtype,
        "picture": [*picture],
        "padded": [height, width],
        "bytes_moved": work.bytes_moved,
        "flops": work.flops,
        "variants": {},
    }
    tensors = formulations.inputs(call, height, width, kind, options.device)
    named = variants(call, tensors, options.variants, picture in COMPILED_SIZES)
    for name, function in named.items():
        result["variants"][name] = rates(measuring.attempt(function, options.device, deadline), work)
    if {"operator", "eager"} <= {n for n, found in result["variants"].items() if "median_ms" in found}:
        result |= formulations.difference(call, named["operator"](), named["eager"]())
    return result


def text(result: dict[str, Any]) -> str:
    """One line for the terminal."""
    times = [
        f"{name} {found['median_ms']:.3f} ms" if "median_ms" in found else f"{name}: {next(iter(found.values()))}"
        for name, found in result["variants"].items()
    ]
    height, width = result["picture"]
    return f"{result['operator']} ({result['preset']}, {result['dtype']}, {width}x{height}): {', '.join(times)}"


def main(given: Sequence[str] | None = None) -> int:
    """Measures and writes the JSON."""
    options = parse(given)
    deadline = time.monotonic() + options.budget
    measuring.find_package()
    import torch

    from agileir_export.plugins.calls import CALLS

    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: no CUDA device was found; --device cpu tries the script out", file=sys.stderr)
        return 4
    document: dict[str, Any] = {"benchmark": "operators", **measuring.machine(options.device), "rows": []}
    calls = [call for call in CALLS if call.label in options.labels]
    with torch.inference_mode():
        # The sizes that matter most come first, should the time budget end the run early.
        for picture in sorted(options.sizes, key=lambda each: each not in COMPILED_SIZES):
            for dtype in options.dtypes:
                for call in calls:
                    document["rows"].append(row(call, picture, dtype, options, deadline))
                    print(text(document["rows"][-1]), flush=True)
                    measuring.write_json(options.out, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
