"""Pass: the free dimensions of input and output get the names batch, height and width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph_pass import GraphPass

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["name_dimensions"]

NAMES = {0: "batch", 2: "height", 3: "width"}


def name_dimensions(scale: int) -> GraphPass:
    """The exporter invents names such as ``8*s39``; tools and readers get ``height`` and ``2*height``.

    Requires one input and one output of four dimensions, each free in batch, height and width. Ensures that they are
    still free, under their new names.

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

    def transform(graph: gs.Graph) -> int:
        factor = "" if scale == 1 else f"{scale}*"
        source, target = graph.inputs[0], graph.outputs[0]
        channels_in, channels_out = source.shape[1], target.shape[1]
        source.shape = ["batch", channels_in, "height", "width"]
        target.shape = ["batch", channels_out, f"{factor}height", f"{factor}width"]
        for tensor in graph.tensors().values():
            if tensor not in (source, target) and hasattr(tensor, "shape") and tensor.inputs:
                tensor.shape = None  # they speak of the invented names; shape inference restores them
        return 6

    def ensures(graph: gs.Graph) -> str | None:
        return requires(graph)

    return GraphPass("name dimensions", requires, transform, ensures)
