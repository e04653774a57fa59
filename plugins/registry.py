"""The description every form of an operator is derived from: torch name, ONNX schema, function body, plugin fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = [
    "DOMAIN",
    "MINIMUM_OPSET",
    "NAMESPACE_ATTRIBUTE",
    "OPERATORS",
    "VERSION",
    "Operator",
    "Shapes",
]

DOMAIN = "agileir"
"""ONNX domain and TensorRT plugin namespace (a plugin namespace must not hold a dot)."""

VERSION = 1
"""Opset version of the domain."""

NAMESPACE_ATTRIBUTE = "plugin_namespace"
"""Node attribute with value DOMAIN: TensorRT >= 10.7 then prefers a registered plugin over the function body."""

MINIMUM_OPSET = 18
"""Oldest opset of the default domain in which the function bodies are valid."""

Shapes = Mapping[str, Sequence[int]]


def _window_size(shapes: Shapes, attributes: Mapping[str, int]) -> dict[str, int]:
    del shapes
    return {"window_size": attributes["window_size"]}


@dataclass(frozen=True)
class Operator:
    """One custom operator.

    Attributes:
        name: ONNX op type and TensorRT plugin name, unique across all domains.
        torch_name: Name under ``torch.ops.agileir``.
        inputs: Tensor inputs in order; all of type T unless listed in `integer_tensors`.
        attributes: Integer attributes, in the order of the torch arguments after the tensors.
        output: Name of the only output.
        integer_tensors: Inputs or output of type int32.
        body: Makes the statements of the ONNX function body, in ONNX text, from the `statics`.
        statics: Facts that a body is written for, from the shapes of constant inputs (``groups``) and the attributes:
            the window size alone unless said otherwise. All nodes of a model must agree in them.
        doc: One sentence for the schema.
    """

    name: str
    torch_name: str
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    output: str
    body: Callable[..., str]
    doc: str
    integer_tensors: tuple[str, ...] = ()
    statics: Callable[[Shapes, Mapping[str, int]], dict[str, int]] = field(default=_window_size)

    def type_of(self, tensor: str) -> str:
        """Type string of an input or the output in an ONNX schema."""
        return "tensor(int32)" if tensor in self.integer_tensors else "T"

    def schema(self) -> onnx.defs.OpSchema:
        """The ONNX schema, registered once with `onnx.defs`."""
        return _schema(self)

    def function(self, opset: int, **statics: int) -> onnx.FunctionProto:
        """The model-local function: the operator in plain ONNX, for runtimes without the plugin.

        Args:
            opset: Opset of the model, >= MINIMUM_OPSET; the checker wants both to agree.
            **statics: What `statics` returned for the nodes of the model.
        """
        import onnx.parser

        text = (
            f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n'
            f"{self.name} <{', '.join(self.attributes)}> "
            f"({', '.join(self.inputs)}) => ({self.output})\n"
            f"{{\n{self.body(**statics)}\n}}"
        )
        function = onnx.parser.parse_function(text)
        function.doc_string = self.doc
        return function


@cache
def _schema(operator: Operator) -> onnx.defs.OpSchema:
    import onnx

    defs = onnx.defs
    parameter = defs.OpSchema.FormalParameter
    floats = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
    schema = defs.OpSchema(
        operator.name,
        DOMAIN,
        VERSION,
        doc=operator.doc,
        inputs=[parameter(name, operator.type_of(name)) for name in operator.inputs],
        outputs=[parameter(operator.output, operator.type_of(operator.output))],
        type_constraints=[("T", floats, "Floating point tensors.")],
        attributes=[
            *(defs.OpSchema.Attribute(name, defs.OpSchema.AttrType.INT, required=True) for name in operator.attributes),
            defs.OpSchema.Attribute(NAMESPACE_ATTRIBUTE, defs.OpSchema.AttrType.STRING, required=False),
        ],
    )
    defs.register_schema(schema)
    return schema


OPERATORS: dict[str, Operator] = {}
"""All operators by ONNX name; each operator folder adds its own."""


def register(operator: Operator) -> Operator:
    """Adds an operator to the registry.

    Raises:
        ValueError: The name is taken.
    """
    if operator.name in OPERATORS:
        raise ValueError(f"operator {operator.name} is registered twice")
    OPERATORS[operator.name] = operator
    return operator
