"""Which nodes compute what keys are chosen from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...plugins import DOMAIN, OPERATORS

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["key_feature_nodes"]

CHOICES = ("TopK", *(operator.name for operator in OPERATORS.values() if operator.chooses_keys))
"""Operators that choose keys, inlined and as single nodes."""

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def key_feature_nodes(graph: gs.Graph) -> set[int]:
    """Ids of the nodes that choose keys and of those that carry features there.

    A choice of the k largest similarities is not continuous: where similarities nearly tie, as in a flat patch, the
    rounding of the features exchanges keys. Half precision throughout exchanges up to 4.5 % of the keys of a picture in
    float16 and 10 % in bfloat16 (packaged models on the packaged pictures). Similarities in float32 do not help once
    the features are rounded. What helps costs little, because keys are chosen once a stage: float32 for the choice, the
    LayerNormalization before it and the stream between stages, upwards until a layer with weights, and for the first
    layer, which sees the image. That leaves 0.13 % in float16 and 0.8 % in bfloat16, with every layer inside the stages
    in half precision. A quantised layer among them is quantised from float32: a Cast between it and its
    DequantizeLinear would make it a layer in float32.
    """
    import onnx_graphsurgeon as gs

    def floats(node: gs.Node) -> list[gs.Tensor]:
        return [t for t in node.inputs if isinstance(t, gs.Variable) and t.dtype == np.float32]

    def constant(tensor: gs.Tensor) -> bool:
        through = tensor.inputs and tensor.inputs[0].op in QUANTISERS
        return isinstance(tensor, gs.Constant) or bool(through and constant(tensor.inputs[0].inputs[0]))

    def has_weights(node: gs.Node) -> bool:
        linear = node.op in LINEAR and any(constant(tensor) for tensor in node.inputs)
        return linear or (node.domain == DOMAIN and node.op not in CHOICES)

    layers: dict[int, int] = {}  # layers with weights from the input to a tensor
    pending: list[gs.Node] = []
    for node in graph.nodes:
        depth = max((layers.get(id(tensor), 0) for tensor in node.inputs), default=0) + has_weights(node)
        layers.update((id(tensor), depth) for tensor in node.outputs)
        if node.op in CHOICES:
            pending.append(node)
    found: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in found:
            continue
        if node.op == "DequantizeLinear":
            found.add(id(node))
            found.update(id(producer) for producer in node.inputs[0].inputs)
            continue
        if has_weights(node) and layers[id(node.outputs[0])] > 1:
            continue
        found.add(id(node))
        pending += [producer for tensor in floats(node) for producer in tensor.inputs]
    return found
