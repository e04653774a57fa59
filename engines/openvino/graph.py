"""A file as OpenVINO reads it: plain ONNX, with a detour around one of its mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["plain_graph"]

LOWEST = "lowest_float32"


def plain_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes out every function, with the bodies that are in the file, and merges equal nodes.

    Where a Concat is quantised, OpenVINO (2026.4) moves the quantisation in front of it, and may then refuse the Concat
    for its inputs of two types. A Max with the lowest float32, which changes no value, keeps it where it is.

    Args:
        model: The exported model; not changed.
    """
    import numpy as np
    from onnx import helper, inliner, numpy_helper

    from ...export.merging import merge_equal_nodes

    plain = merge_equal_nodes(inliner.inline_local_functions(model))
    nodes = list(plain.graph.node)
    joined = {node.output[0] for node in nodes if node.op_type == "Concat"}
    del plain.graph.node[:]
    for node in nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] in joined:
            kept = f"{node.output[0]}/joined"
            plain.graph.node.append(helper.make_node("Max", [node.input[0], LOWEST], [kept], name=kept))
            node.input[0] = kept
        plain.graph.node.append(node)
    plain.graph.initializer.append(numpy_helper.from_array(np.array(np.finfo(np.float32).min, np.float32), LOWEST))
    return plain
