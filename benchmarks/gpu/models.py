"""Whole presets on a GPU, folded for inference: ordinary torch functions against the project's kernels.

Variants: ``stock`` (ordinary functions), ``attention`` (attention as operators), ``blocks`` (half blocks fused around
it, the default), ``blocks_graph`` (the same as a CUDA graph), ``attention_compiled`` and ``stock_compiled`` (every
block through `torch.compile`). Compiled variants are measured last, for they take longest to make.

Usage, from any folder, with PyTorch (and the Triton it brings) and numpy installed::

    python benchmarks/gpu/models.py --out benchmarks/results/models.json

Weights are random: time and memory do not depend on them. The times are medians of CUDA-event timings of single
forward passes; ``speedup`` and ``memory_ratio`` are those of ``blocks``. It ends within five minutes; what the time
budget does not allow is marked skipped in the JSON, and can be done with ``--resume``. Exit code 1: a variant failed,
or the two results differ; the others were measured.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import measuring
from record import Record

PRESETS = ("agileir_x2", "agileir_light_x2", "swinir_classical_x2", "semanir_s_x2")
SIZES = ((360, 640), (64, 64))
DTYPES = ("float32", "float16", "bfloat16")
EAGER = ("stock", "attention", "blocks", "blocks_graph")
COMPILED = ("stock_compiled", "attention_compiled")
CAPTURED = ("blocks_graph",)
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


def compared(variants: dict[str, Any]) -> dict[str, float]:
    """How many times faster and smaller the fused blocks are than stock, and than stock compiled, where measured."""
    answer = {}
    blocks = variants.get("blocks", {})
    for name, suffix in (("stock", ""), ("stock_compiled", "_over_compiled")):
        other = variants.get(name, {})
        if "median_ms" in other and "median_ms" in blocks:
            answer["speedup" + suffix] = other["median_ms"] / blocks["median_ms"]
        if other.get("peak_bytes") and blocks.get("peak_bytes"):
            answer["memory_ratio" + suffix] = blocks["peak_bytes"] / other["peak_bytes"]
    return answer


class Forms:
    """The forms of one preset in one tensor type, and a picture for them.

    Args:
        build: Makes the model; called for the first form that is asked for.
        device: ``"cuda"`` or ``"cpu"``.
        dtype: Tensor type.
        picture: Height and width.
    """

    def __init__(self, build: Callable[[], Any], device: str, dtype: str, picture: tuple[int, int]) -> None:
        self.build, self.device, self.dtype, self.picture = build, device, dtype, picture

    @cached_property
    def image(self) -> Any:
        """Random, ``[1, C, H, W]``."""
        import torch

        generator = torch.Generator(self.device).manual_seed(0)
        shape = 1, self.build().spec.channels, *self.picture
        return torch.rand(shape, generator=generator, device=self.device).to(getattr(torch, self.dtype))

    def call(self, name: str) -> Callable[[], Any]:
        """A forward pass of a form, ready to be repeated."""
        from agileir_export.models import use_operators

        model = self.build()
        form = name.partition("_")[0]
        if name in COMPILED:
            model = copy.deepcopy(model)
            compile_blocks(model)
        use_operators(model, form != "stock", fuse=form == "blocks")

        def forward() -> Any:
            use_operators(model, form != "stock", fuse=form == "blocks")
            return model(self.image)

        return self.graph(forward) if name in CAPTURED else forward

    def graph(self, forward: Callable[[], Any]) -> Callable[[], Any]:
        """A forward pass captured as a CUDA graph."""
        import torch

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            forward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            forward()
        return graph.replay


def compile_blocks(model: Any) -> None:
    """Compiles a model block by block: alike blocks share what is compiled, so that it takes seconds, not minutes."""
    import torch

    from agileir_export.models.layers import Block

    torch.compiler.reset()
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False)


def measured(record: Record, forms: Forms, preset: str, names: Sequence[str], deadline: float) -> None:
    """Some forms of the model, at one size in one tensor type."""
    row = record.row(preset=preset, dtype=forms.dtype, picture=[*forms.picture])

    def measurement(name: str) -> dict[str, Any]:
        if time.monotonic() > deadline:
            return {"skipped": "time budget"}
        ready = cache(partial(forms.call, name))  # made at the first call, where an error costs this variant only
        found = measuring.attempt(lambda: ready()(), record.device, deadline)
        if name in CAPTURED:
            found.pop("peak_bytes", None)  # a graph has its memory before it runs
        return found

    for name in names:
        record.measure(row, name, partial(measurement, name))
    row |= compared(row["variants"])
    times = [row["variants"].get(name, {}) for name in ("stock", "blocks")]
    if all("median_ms" in found for found in times) and "relative_error" not in row and time.monotonic() < deadline:
        result, expected = forms.call("blocks"), forms.call("stock")
        record.compare(row, LARGEST_ERROR[forms.dtype], lambda: {"relative_error": apart(result(), expected())})
    record.write()


def built(preset: str, device: str, dtype: str) -> Any:
    """A preset with random weights, folded for inference."""
    import torch

    from agileir_export.models import build_preset, fold

    torch.manual_seed(0)
    return fold(build_preset(preset)).to(device, getattr(torch, dtype))


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
        with torch.no_grad():
            jobs = []
            for dtype in sorted(options.dtypes, key=lambda each: each != "float16"):
                builds = {preset: cache(partial(built, preset, options.device, dtype)) for preset in options.presets}
                for picture in options.sizes:
                    jobs += [(preset, Forms(build, options.device, dtype, picture)) for preset, build in builds.items()]
            for names in (EAGER, COMPILED) if options.device == "cuda" else (("stock", "attention", "blocks"),):
                for preset, forms in jobs:
                    measured(record, forms, preset, names, deadline)
    except measuring.ContextLost:
        measuring.start_again(deadline)
    return record.finish()


if __name__ == "__main__":
    sys.exit(main())
