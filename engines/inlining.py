"""Operators written out as their function bodies, for builders that shall not run them as plugins.

NVIDIA's parser writes function bodies out too, but each call by itself: what several calls have in common (the order
of the windows, the shift mask, the tables of bits) stands in the network once a call, and a builder takes its time for
every layer. Written out here, equal nodes are merged first; a SemanIR of 36 layers builds in half the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .requested_types import called_nodes

if TYPE_CHECKING:
    import onnx

__all__ = ["inline_operators"]

MERGED_ELEMENTS = 1 << 16
"""Largest constant that is compared with others: the bodies' tables are far below, and weights are initializers."""


def inline_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes out every function a model calls, and merges nodes that compute the same.

    Args:
        model: An exported model in memory, with its weights; it is not changed.

    Returns:
        A model without functions that computes the same. A node from a function body is named
        ``node | call (operator)``, as NVIDIA's parser names it (`requested_types.product_nodes`); of merged nodes, the
        first call's stays.
    """
    import onnx.inliner
    import onnx_ir
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass

    inlined = onnx.inliner.inline_local_functions(model)
    for node, (name, _) in zip(inlined.graph.node, called_nodes(model), strict=True):
        node.name = name
    _share_shapes(inlined.graph)
    graph = onnx_ir.from_proto(inlined)
    CommonSubexpressionEliminationPass(size_limit=MERGED_ELEMENTS)(graph)
    return onnx_ir.to_proto(graph)


def _share_shapes(graph: onnx.GraphProto) -> None:
    """Lets tensors whose sizes have equal names (`export.passes.name_dimensions`) ask one of them for its shape.

    Index arithmetic begins with the shape of an operator's input: it is equal nodes only after this.
    """
    sizes = {value.name: _sizes(value) for value in (*graph.input, *graph.value_info)}
    first: dict[tuple[int | str, ...], str] = {}
    for node in graph.node:
        if node.op_type == "Shape" and (known := sizes.get(node.input[0])):
            node.input[0] = first.setdefault(known, node.input[0])


def _sizes(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """All sizes of a tensor, numbers or names; empty where one is unknown."""
    sizes = tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim)
    return sizes if all(sizes) else ()
