"""Which number types a node may read and write, from the schemas of ONNX and of our operators."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ..plugins import DOMAIN, OPERATORS

if TYPE_CHECKING:
    import onnx

__all__ = ["HALF_TYPES", "body_refusal", "permits", "schema_of"]

HALF_TYPES = {"float16": 10, "bfloat16": 16}
"""ONNX element type by name of a half precision (`onnx.TensorProto.DataType`)."""


@cache
def schema_of(operator: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    """The schema of an operator; None where neither ONNX nor this package knows it.

    Args:
        operator: Operator type.
        domain: Its domain, empty for ONNX's own.
        opset: Version of ONNX's own domain.
    """
    import onnx

    if domain == DOMAIN and operator in OPERATORS:
        return OPERATORS[operator].schema()
    try:
        return onnx.defs.get_schema(operator, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return None


def permits(schema: onnx.defs.OpSchema, position: int, precision: str, output: bool = False) -> bool:
    """Whether an input or output may be of a type.

    Args:
        schema: Of the operator.
        position: Number of the input or output; positions past the last belong to a variadic one.
        precision: ``"float32"`` (called ``float`` in ONNX), ``"float16"`` or ``"bfloat16"``.
        output: Ask for an output instead of an input.
    """
    formals = schema.outputs if output else schema.inputs
    formal = formals[min(position, len(formals) - 1)]
    constraints = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    name = "float" if precision == "float32" else precision
    return f"tensor({name})" in constraints.get(formal.type_str, (formal.type_str,))


def body_refusal(function: onnx.FunctionProto, precision: str, opset: int) -> str | None:
    """Why the function body of an operator of ours is not valid ONNX in a half precision; None where it is.

    The body is generic in its type, but not every node in it takes every type in every opset.

    Args:
        function: The body, named as the operator.
        precision: ``"float16"`` or ``"bfloat16"``.
        opset: Version of ONNX's own domain.
    """
    import onnx
    from onnx import helper, inliner, shape_inference

    operator, half = OPERATORS[function.name], HALF_TYPES[precision]

    def value(name: str) -> onnx.ValueInfoProto:
        kind = onnx.TensorProto.INT32 if name in operator.integer_tensors else half
        return helper.make_tensor_value_info(name, kind, None)

    call = helper.make_node(operator.name, operator.inputs, [operator.output], domain=DOMAIN)
    call.attribute.extend(helper.make_attribute(name, 1) for name in operator.attributes)
    graph = helper.make_graph([call], "call", [value(name) for name in operator.inputs], [value(operator.output)])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    typed = shape_inference.infer_shapes(inliner.inline_local_functions(model)).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in (*typed.input, *typed.value_info, *typed.output)}
    for node in typed.node:
        schema = schema_of(node.op_type, node.domain, opset)
        if schema is None:
            return f"{node.op_type} in its body is unknown"
        for names, output in ((node.input, False), (node.output, True)):
            for position, name in enumerate(names):
                if types.get(name) == half and not permits(schema, position, precision, output):
                    return f"{node.op_type} in its body takes no {precision} in opset {opset}"
    return None
