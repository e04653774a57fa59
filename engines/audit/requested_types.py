"""What an ONNX file asks an engine to compute in: its products, the quantised ones, and those that are float32.

Networks are strongly typed, so the file decides. The record of a conversion to half precision
(`OnnxArtifact.conversion`) gives the reason for what stayed float32 by operator and count; here it is matched with the
nodes, by their types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...export.streams import picture_floats

if TYPE_CHECKING:
    import onnx

__all__ = ["called_nodes", "float32_nodes", "product_nodes", "quantised_nodes"]

PRODUCT_OPERATORS = {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"}

EXACT = "integers carried in float32, which has them exactly"


def called_nodes(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    """All nodes a model runs, in order, with the names that engines give them: see `Kernel.origin`.

    Nodes without a name are called ``node_of_`` and their first output, as NVIDIA's parser does.

    Args:
        model: An exported model; in place of a call stand the nodes of the function body, once for every call.
    """
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    for node in model.graph.node:
        body = bodies.get((node.domain, node.op_type))
        if body is None:
            yield _name(node), node
        for inner in body or ():
            yield f"{_name(inner)} | {_name(node)} ({node.op_type})", inner


def product_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that multiply and accumulate, as engines name them.

    Args:
        model: An exported model; nodes in the function bodies it calls are included, once for every call.
    """
    return [name for name, node in called_nodes(model) if _is_product(node)]


def quantised_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the products both of whose factors come from DequantizeLinear, directly or through a Cast."""
    dequantised = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    dequantised |= {node.output[0] for node in casts if node.input[0] in dequantised}
    return [_name(node) for node in model.graph.node if _is_product(node) and dequantised.issuperset(node.input[:2])]


def float32_nodes(model: onnx.ModelProto, records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Products of the main graph that a converted file computes in float32 on purpose, with the reason.

    A product counts as intended where the conversion recorded as many of its operator as the file has in float32: one
    that the conversion forgot makes the counts differ, and then none of that operator is excused. Products that read no
    float that depends on the picture (they pack or count in float32) need no record.

    Args:
        model: A file in half precision.
        records: ``float32_nodes`` of `OnnxArtifact.conversion`: ``op``, ``reason`` and ``count``.
    """
    import onnx

    typed = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*typed.input, *typed.value_info, *typed.output)}
    types |= {tensor.name: tensor.data_type for tensor in typed.initializer}
    computed = picture_floats(typed)
    float32 = [n for n in typed.node if _is_product(n) and types.get(n.input[0]) == onnx.TensorProto.FLOAT]
    exact = {_name(node): EXACT for node in float32 if computed.isdisjoint(node.input)}
    rest = [node for node in float32 if _name(node) not in exact]
    found = Counter(node.op_type for node in rest)
    recorded: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for record in records:
        recorded[record["op"]] += int(record["count"])
        reasons.setdefault(record["op"], str(record["reason"]))
    intended = {_name(n): reasons[n.op_type] for n in rest if found[n.op_type] <= recorded[n.op_type]}
    return exact | intended


def _is_product(node: onnx.NodeProto) -> bool:
    return node.op_type in PRODUCT_OPERATORS and node.domain in ("", "ai.onnx")


def _name(node: onnx.NodeProto) -> str:
    """A node's name as NVIDIA's parser tells it."""
    return node.name or f"node_of_{node.output[0]}"
