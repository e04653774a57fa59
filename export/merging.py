"""Nodes that compute the same, merged: for graphs in which function bodies are written out.

What several calls of a function have in common (the order of the windows, the shift mask, the tables of bits) stands
in such a graph once a call. Runtimes merge what they see to be equal, but not that two tensors have equal shapes, with
which all index arithmetic begins; and TensorRT takes its build time for every layer before it merges any.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["merge_equal_nodes", "sizes"]

MERGED_ELEMENTS = 1 << 16
"""Largest constant that is compared with others: the bodies' tables are far below, and weights are initializers."""


def merge_equal_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Computes once what a graph computes several times.

    Args:
        model: A model in memory; it is not changed. Dimensions of one name must have one size, as
            `passes.name_dimensions` leaves them; this is not checked.

    Returns:
        A model that computes the same; of equal nodes, the first stays.
    """
    import onnx_ir
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass

    copy = deepcopy(model)
    _share_shapes(copy.graph)
    merged = onnx_ir.from_proto(copy)
    CommonSubexpressionEliminationPass(size_limit=MERGED_ELEMENTS)(merged)
    return onnx_ir.to_proto(merged)


def _share_shapes(graph: onnx.GraphProto) -> None:
    """Lets tensors whose sizes have equal names ask one of them for its shape."""
    known = {value.name: sizes(value) for value in (*graph.input, *graph.value_info)}
    first: dict[tuple[int | str, ...], str] = {}
    for node in graph.node:
        if node.op_type == "Shape" and (asked := known.get(node.input[0])) and all(asked):
            node.input[0] = first.setdefault(asked, node.input[0])


def sizes(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Sizes of a tensor, numbers or names, 0 where one is unknown; empty where not even their number is known.

    Some tools write -1 for what is unknown.
    """
    return tuple(size.dim_param or max(size.dim_value, 0) for size in value.type.tensor_type.shape.dim)
