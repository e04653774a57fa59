"""Each operator on a GPU: the kernel against plain torch, scaled_dot_product_attention, torch.compile, and its tactics.

Usage, from any folder, with PyTorch (and the Triton it brings) and numpy installed::

    python benchmarks/gpu/operators.py --out benchmarks/results/operators.json

The times are medians of CUDA-event timings of single calls on tensors that are already on the device. Rates are what
the definition of the operator must move and compute (``plugins/cost.py``) divided by that time, for all variants
alike; "limits" in the JSON is what the machine reaches on a copy and on a matrix product, and its rates of exponentials
and integer operations; "floor_ms" is the time they leave, "times_floor" how many times that a variant takes. It ends
within five minutes; what the time budget does not allow is marked skipped in the JSON, and can be done with
``--resume``. Exit code 1: a variant failed, or the operator's result is wrong; the others were measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measuring
from record import Record

VARIANTS = ("operator", "eager", "sdpa", "tactic2", "tactic3", "compiled")
SIZES = ((360, 640), (64, 64), (720, 1280), (256, 256))
"""The sizes that matter most come first, should the time budget end the run early."""

COMPILED_SIZES = ((360, 640), (64, 64))
"""Sizes for torch.compile, which needs many seconds for each and comes last."""

COMPILE_SECONDS = 30.0
"""Time that must be left for it."""

LARGEST_ERROR = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Relative error beyond which an operator's result is called wrong, by tensor type."""

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


def variants(call: Any, tensors: Sequence[Any]) -> dict[str, Callable[[], Any]]:
    """The functions to be timed, by name; without those that do not exist for the operator."""
    import formulations
    import torch

    made: dict[str, Callable[[], Any]] = {"operator": formulations.operator(call, tensors)}
    plain = formulations.eager(call)
    made["eager"] = lambda: plain(*tensors)
    for tactic in range(2, formulations.tactics(call) + 1):
        made[f"tactic{tactic}"] = formulations.operator(call, tensors, tactic)
    attention = formulations.sdpa(call)
    if attention is not None:
        made["sdpa"] = lambda: attention(*tensors)
    torch.compiler.reset()
    function = torch.compile(plain, dynamic=False)
    made["compiled"] = lambda: function(*tensors)
    return made


def existing(call: Any, device: str) -> set[str]:
    """The variants that there are of an operator on a device."""
    import formulations

    names = {"operator", "eager", "compiled"}
    if formulations.sdpa(call) is not None:
        names.add("sdpa")
    if device == "cuda":
        names |= {f"tactic{tactic}" for tactic in range(2, formulations.tactics(call) + 1)}
    return names


def floor(work: Any, limits: dict[str, float]) -> float | None:
    """Milliseconds below which no kernel can come on a machine; None where its limits are not known."""
    if not {"tb_per_s", "tflop_per_s"} <= limits.keys():
        return None
    moved, computed = limits["tb_per_s"] * 1e12, limits["tflop_per_s"] * 1e12
    return float(1000 * work.least_seconds(moved, computed, limits["exponentials_per_s"], limits["integers_per_s"]))


def rates(found: dict[str, Any], work: Any, floor_ms: float | None) -> dict[str, Any]:
    """Adds the achieved rates to a measurement, and how many times its floor it takes."""
    if "median_ms" not in found:
        return found
    seconds = found["median_ms"] / 1000
    if floor_ms:
        found = found | {"times_floor": found["median_ms"] / floor_ms}
    return found | {
        "tb_per_s": work.bytes_moved / seconds / 1e12,
        "tflop_per_s": work.flops / seconds / 1e12,
    }


def measured(
    record: Record,
    call: Any,
    picture: tuple[int, int],
    dtype: str,
    names: Sequence[str],
    deadline: float,
) -> None:
    """Some variants of one call at one size (padded to whole windows) in one tensor type."""
    import formulations
    import torch

    from agileir_export.plugins.catalogue import BY_TORCH_NAME

    window = call.attributes["window_size"]
    height, width = (-(-side // window) * window for side in picture)
    kind = getattr(torch, dtype)
    work = BY_TORCH_NAME[call.operator].cost(call.shapes(1, height, width), call.attributes, kind.itemsize)
    row = record.row(
        operator=call.operator,
        preset=call.label,
        attributes=dict(call.attributes),
        dtype=dtype,
        picture=[*picture],
        padded=[height, width],
        bytes_moved=work.bytes_moved,
        flops=work.flops,
    )
    row["floor_ms"] = floor(work, record.document.get("limits", {}))
    functions: dict[str, Callable[[], Any]] = {}

    def measurement(name: str) -> dict[str, Any]:
        def function() -> Any:
            if not functions:  # here, where an error costs this variant only
                functions.update(variants(call, formulations.inputs(call, height, width, kind, record.device)))
            return functions[name]()

        until = deadline - COMPILE_SECONDS if name == "compiled" else deadline
        return rates(measuring.attempt(function, record.device, until), work, row["floor_ms"])

    there = existing(call, record.device)
    done = {name for name in names if name in there and record.measure(row, name, partial(measurement, name))}
    if {"operator", "eager"} <= done and functions:
        results = functions["operator"], functions["eager"]
        record.compare(
            row, LARGEST_ERROR[dtype], lambda: formulations.difference(call, *(result() for result in results))
        )


def main(given: Sequence[str] | None = None) -> int:
    """Measures and writes the JSON."""
    options = parse(given)
    deadline = time.monotonic() + options.budget
    measuring.find_package()
    import torch

    from agileir_export.plugins.catalogue import CALLS

    if problem := measuring.no_gpu(options.device):
        print(f"error: {problem}", file=sys.stderr)
        return 4
    head = {"benchmark": "operators", **measuring.machine(options.device), "limits": measuring.limits(options.device)}
    record = Record(options.out, head, options.device, options.resume)
    calls = [call for call in CALLS if call.label in options.labels]
    plain = [name for name in options.variants if name != "compiled"]
    rounds = [(plain, options.sizes)]
    if "compiled" in options.variants:
        rounds.append((["compiled"], [size for size in options.sizes if size in COMPILED_SIZES]))
    try:
        with torch.inference_mode():
            for names, sizes in rounds:
                for picture in sizes:
                    for dtype in options.dtypes:
                        for call in calls:
                            measured(record, call, picture, dtype, names, deadline)
    except measuring.ContextLost:
        measuring.start_again(deadline)
    return record.finish()


if __name__ == "__main__":
    sys.exit(main())
