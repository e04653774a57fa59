"""Pass: free dimensions are named after the picture's batch, height and width."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from .graph_pass import GraphPass

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["name_dimensions"]

NAMES = {0: "batch", 2: "height", 3: "width"}


def name_dimensions(scale: int) -> GraphPass:
    """The exporter invents names such as ``8*s39``; tools and readers get ``height``, ``2*height``, ``height/2``.

    Inside the graph, names that are no multiple of one of the input's or output's stay as they are. One name is one
    size everywhere in the graph, before and after.

    Requires one input and one output of four dimensions, each free in batch, height and width. Ensures that they are
    still free, and that the output's are `scale` times the input's.

    Args:
        scale: Output pixels per input pixel.
    """

    def requires(graph: gs.Graph) -> str | None:
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            return f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs, one each expected"
        for tensor in (graph.inputs[0], graph.outputs[0]):
            if len(tensor.shape) != 4:
                return f"{tensor.name} has shape {tensor.shape}, four dimensions expected"
            frozen = [NAMES[axis] for axis in NAMES if isinstance(tensor.shape[axis], int)]
            if frozen:
                return f"{tensor.name} {tensor.shape} is frozen in {', '.join(frozen)}"
        return None

    def transform(graph: gs.Graph) -> None:
        source, target = graph.inputs[0], graph.outputs[0]
        units: dict[str, tuple[Fraction, str]] = {}
        for tensor, magnification in ((target, scale), (source, 1)):
            for axis, name in NAMES.items():
                factor, symbol = _split(tensor.shape[axis])
                units[symbol] = (Fraction(1 if name == "batch" else magnification, factor), name)
        for tensor in graph.tensors().values():
            if tensor.shape is not None and any(isinstance(size, str) for size in tensor.shape):
                tensor.shape = [_renamed(size, units) if isinstance(size, str) else size for size in tensor.shape]

    def ensures(graph: gs.Graph) -> str | None:
        if problem := requires(graph):
            return problem
        factor = "" if scale == 1 else f"{scale}*"
        sizes = [graph.outputs[0].shape[axis] for axis in NAMES]
        wanted = ["batch", f"{factor}height", f"{factor}width"]
        return None if sizes == wanted else f"the output's sizes are {sizes}, {wanted} expected"

    return GraphPass("name dimensions", requires, transform, ensures)


def _split(size: str) -> tuple[int, str]:
    """Factor and symbol of the exporter's name for a size: ``8*s39``, ``batch``."""
    factor, _, symbol = size.rpartition("*")
    return (int(factor), symbol) if re.fullmatch(r"[1-9]\d*", factor) else (1, size)


def _renamed(size: str, units: Mapping[str, tuple[Fraction, str]]) -> str:
    """The size in multiples of the input's, where its symbol is known."""
    factor, symbol = _split(size)
    if symbol not in units:
        return size
    unit, name = units[symbol]
    ratio = factor * unit
    times = f"{ratio.numerator}*{name}" if ratio.numerator > 1 else name
    return f"{times}/{ratio.denominator}" if ratio.denominator > 1 else times
