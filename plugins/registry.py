"""The description every form of an operator is derived from: torch name, ONNX schema, function body, plugin fields.

An operator is a folder beside this module. Its ``__init__.py`` holds the entry, an `Operator`, and loads nothing heavy;
what needs a heavy library is a module of the folder by a fixed name: ``operator.py`` (PyTorch), ``kernel.py`` (Triton)
and ``reference.py`` (NumPy).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from .calls import Call
from .cost import Cost

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = [
    "DOMAIN",
    "MINIMUM_OPSET",
    "NAMESPACE_ATTRIBUTE",
    "VERSION",
    "Operator",
    "Plugin",
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


class Plugin(Protocol):
    """What a TensorRT plugin is made from: an operator, or a half block (`half_block_plugins`)."""

    @property
    def name(self) -> str:
        """Its name, and the ONNX op type of its nodes."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensor inputs in order, the first an image ``[B, H, W, C]``."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Integer attributes."""

    @property
    def output(self) -> str:
        """The output."""

    @property
    def integer_tensors(self) -> tuple[str, ...]:
        """Inputs or output of type int32; all others are of one floating-point type."""

    def kernels(self) -> Any:
        """What has ``launch``, ``output_shape``, ``OUTPUT_TYPE``, ``SCRATCH`` and ``TACTICS``, as a ``kernel.py``."""


@dataclass(frozen=True)
class Operator:
    """One custom operator.

    Attributes:
        name: ONNX op type and TensorRT plugin name, unique across all domains.
        torch_name: Name under ``torch.ops``, in the namespace `DOMAIN`; also the name of the operator's folder.
        inputs: Tensor inputs in order; all of type T unless listed in `integer_tensors`.
        attributes: Integer attributes, in the order of the torch arguments after the tensors.
        output: Name of the only output.
        integer_tensors: Inputs or output of type int32.
        body: Makes the statements of the ONNX function body, in ONNX text, from the `statics`.
        doc: One sentence for the schema.
        cost: What a call costs, from the shapes of its tensors, its attributes by name, and the bytes of an element.
        calls: The calls of the presets.
        statics: Facts that a body is written for, from the shapes of constant inputs (``groups``) and the attributes:
            the window size alone unless said otherwise. All nodes of a model must agree in them.
        chooses_keys: Whether the output says which keys are attended to: a choice that rounding of the inputs can turn.
        float_reason: Why it computes in float32 whatever the precision of the file; empty where it does not.
        values_of: Input laid out q | k | v in whose v the output is linear, channel by channel; empty where none is.
        in_half_block: Whether it is what `half_blocks.window_attention_launch` has inside: attention within windows, of
            q | k | v and position biases.
    """

    name: str
    torch_name: str
    inputs: tuple[str, ...]
    attributes: tuple[str, ...]
    output: str
    body: Callable[..., str]
    doc: str
    cost: Callable[[Sequence[Sequence[int]], Mapping[str, int], int], Cost]
    calls: tuple[Call, ...] = field(hash=False)
    integer_tensors: tuple[str, ...] = ()
    statics: Callable[[Shapes, Mapping[str, int]], dict[str, int]] = field(default=_window_size)
    chooses_keys: bool = False
    float_reason: str = ""
    values_of: str = ""
    in_half_block: bool = False

    def type_of(self, tensor: str) -> str:
        """Type string of an input or the output in an ONNX schema."""
        return "tensor(int32)" if tensor in self.integer_tensors else "T"

    def schema(self) -> onnx.defs.OpSchema:
        """The ONNX schema, registered once with `onnx.defs`."""
        return _schema(self)

    def kernels(self) -> Any:
        """``kernel.py`` of the operator; needs Triton."""
        return importlib.import_module(f".{self.torch_name}.kernel", __package__)

    def torch_operator(self) -> Any:
        """The operator under ``torch.ops``; loads PyTorch and registers it there."""
        import torch

        importlib.import_module(f".{self.torch_name}.operator", __package__)
        return getattr(getattr(torch.ops, DOMAIN), self.torch_name)

    def reference(self) -> Callable[..., npt.NDArray[Any]]:
        """The operator in NumPy, in float64: a function of its tensors, then its attributes."""
        module = importlib.import_module(f".{self.torch_name}.reference", __package__)
        found: Callable[..., npt.NDArray[Any]] = module.reference
        return found

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
