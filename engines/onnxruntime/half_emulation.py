"""Half precision on the CPU, as a GPU computes it.

ONNX Runtime's CPU provider has kernels in float16 for few operators and in bfloat16 for nearly none. Around every other
float16 node it inserts Casts to float32, and then drops pairs of Casts between such nodes, at every optimisation level:
the whole network runs in float32, and a value past 65504 goes unnoticed. In bfloat16 it refuses the model. (Tried with
ONNX Runtime 1.31: ``a + a`` of a float16 40000, less ``a``, gives 40000 instead of infinity.) Casts that a float32
model brings along itself it keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import Unsupported

if TYPE_CHECKING:
    import onnx

__all__ = ["HALF", "computes_in_half", "emulate_half"]

FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16
"""ONNX element types."""

HALF = (FLOAT16, BFLOAT16)

# fmt: off
EXACT = frozenset({
    "Abs", "Concat", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Identity", "Max", "Min", "Neg", "Relu", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze",
    "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
"""Operators whose results are values they were given, or need no more bits: nothing to round."""


def computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether any tensor of a model is float16 or bfloat16."""
    graph = model.graph
    return any(tensor.data_type in HALF for tensor in graph.initializer) or any(
        attribute.i in HALF for node in graph.node if node.op_type == "Cast" for attribute in node.attribute
    )


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model that computes what a half-precision model does on a GPU; every tensor keeps its name.

    Every node computes in float32 from operands that are half-precision numbers, as tensor cores accumulate their
    products, and its result is rounded to half precision by a pair of Casts: magnitudes past 65504 become infinite,
    small ones subnormal or zero. Function bodies are inlined first, so that what they keep in float32 stays there.

    Args:
        model: Any model of ONNX's own operators and model-local functions; not changed.

    Raises:
        Unsupported: A node holds a subgraph.
        ValueError: ONNX cannot tell the type of a tensor.
    """
    from onnx import inliner, shape_inference

    result = shape_inference.infer_shapes(inliner.inline_local_functions(model))
    graph = result.graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in HALF:
            value.type.tensor_type.elem_type = FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in HALF:
            tensor.CopyFrom(_widened(tensor))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.extend(_emulated(node, types))
    return result


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A half-precision tensor in float32, exactly."""
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _emulated(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    """What stands for a node in float32."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            raise Unsupported(f"Half precision is not emulated inside of {node.op_type} (node {node.name}).")
        if attribute.HasField("t") and attribute.t.data_type in HALF:
            attribute.t.CopyFrom(_widened(attribute.t))
        elif attribute.name in ("output_dtype", "dtype") and attribute.i in HALF:
            attribute.i = FLOAT
    missing = [name for name in node.output if name and not types.get(name)]
    if missing:
        raise ValueError(f"ONNX cannot tell the type of {missing[0]} (node {node.name}, {node.op_type}).")
    if node.op_type in ("Cast", "CastLike"):
        source, (result,) = node.input[0], node.output
        return _casts(source, result, types[result])
    added: list[onnx.NodeProto] = []
    if node.op_type not in EXACT:
        for position, name in enumerate(node.output):
            if types.get(name) in HALF:
                node.output[position] = f"{name}/unrounded"
                added += _casts(node.output[position], name, types[name])
    return [node, *added]


def _casts(source: str, result: str, kind: int) -> list[onnx.NodeProto]:
    """Brings `source` to a type; to a half-precision type and back to float32."""
    from onnx import helper

    if kind not in HALF:
        return [helper.make_node("Cast", [source], [result], name=f"{result}/cast", to=kind)]
    half = f"{result}/half"
    return [
        helper.make_node("Cast", [source], [half], name=f"{result}/round", to=kind),
        helper.make_node("Cast", [half], [result], name=f"{result}/widen", to=FLOAT),
    ]
