"""Which tensors of a graph can be divided by a common factor without a change of what the graph computes.

A *stream* is a set of tensors that only sums and rearrangements join, such as the residual stream of a body. All of
a stream's tensors carry the same factor. Streams meet at nodes that take any factor on either side, because constants
absorb it: a linear map by its weight and bias, a LayerNorm by its epsilon (reading) and its affine part (writing).
Every other kind of node fixes what it touches at factor one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["LINEAR", "SUMS", "Stream", "constants", "describe", "find_streams", "picture_floats", "stays_float32"]

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Linear in the input that is not constant: the weight takes the ratio of both factors, the bias the output's."""

SUMS = frozenset({"Add", "Concat", "Max", "Min", "Sub", "Sum"})
"""Keep a factor that all inputs share; constant inputs take it on, too."""

PRODUCTS = frozenset({"Div", "Mul"})
"""Keep the factor where the other operand is constant."""

# fmt: off
FIRST_INPUT = frozenset({
    "Abs", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "LeakyRelu", "Neg", "Relu", "Reshape",
    "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})
# fmt: on
"""Rearrange their first input or are positively homogeneous in it: f(c x) = c f(x) for c > 0."""

BLIND = frozenset({"Constant", "Shape", "Size"})
"""Look at no value."""


@dataclass(frozen=True)
class Stream:
    """Tensors that carry one factor.

    Attributes:
        tensors: Their names, in the order they are computed.
        fixed_by: Why the factor must be one; empty where it is free.
    """

    tensors: tuple[str, ...]
    fixed_by: str


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Constant tensors by name: initialisers, and the values of Constant nodes. Changing one changes the graph."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = attribute.t
    return found


def find_streams(graph: onnx.GraphProto) -> list[Stream]:
    """All streams of a graph, by the first tensor computed in each."""
    known = constants(graph).keys()
    groups = _Groups()
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            groups.fix([value.name], f"{value.name} is the {kind} of the graph")
    for node in graph.node:
        variable = [name for name in node.input if name and name not in known]
        outputs = [name for name in node.output if name]
        if (reason := _fixes(node, known)) is not None:
            groups.fix([*variable, *outputs], f"{describe(node)} {reason}")
        elif node.op_type in SUMS | PRODUCTS:
            groups.join([*variable, *outputs])
        elif node.op_type in FIRST_INPUT:
            groups.join([node.input[0], *outputs])
        else:
            for name in (*variable, *outputs):
                groups.join([name])
    return list(groups.streams(known))


def describe(node: onnx.NodeProto) -> str:
    """A node for a reader: kind and result."""
    return f"{node.op_type} (-> {node.output[0]})"


def _fixes(node: onnx.NodeProto, known: Iterable[str]) -> str | None:
    """Why a node lets no factor through; None where it does."""
    kind, inputs = node.op_type, [name for name in node.input if name]
    variable = [name for name in inputs if name not in known]
    if node.domain not in ("", "ai.onnx"):
        return "is not homogeneous"
    if kind in BLIND:
        return None
    if kind in LINEAR:
        if len(variable) == 1 and variable[0] in inputs[:2]:
            return None
        return "multiplies two computed tensors" if len(variable) > 1 else "has no computed operand"
    if kind == "LayerNormalization":
        if len(variable) == 1 and variable[0] == inputs[0] and len(node.output) == 1:
            return None
        return "takes computed gains, or returns its statistics"
    if kind in SUMS:
        return None if variable else "sums constants"
    if kind in PRODUCTS:
        if len(variable) == 1 and (kind == "Mul" or variable[0] == inputs[0]):
            return None
        return "multiplies or divides computed tensors"
    if kind in FIRST_INPUT:
        return None if inputs[0] not in known else "rearranges a constant"
    return "is not positively homogeneous"


class _Groups:
    """Disjoint sets of tensors, with the first reason for which a set's factor is fixed."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def find(self, name: str) -> str:
        self.parents.setdefault(name, name)
        while (parent := self.parents[name]) != name:
            self.parents[name] = name = self.parents[parent]
        return name

    def join(self, names: list[str]) -> None:
        first, *others = [self.find(name) for name in names]
        for other in others:
            root, other = self.find(first), self.find(other)
            if root != other:
                self.parents[other] = root
                if (reason := self.reasons.pop(other, None)) is not None:
                    self.reasons.setdefault(root, reason)

    def fix(self, names: list[str], reason: str) -> None:
        for name in names:
            self.reasons.setdefault(self.find(name), reason)

    def streams(self, known: Iterable[str]) -> Iterator[Stream]:
        members: dict[str, list[str]] = {}
        for name in list(self.parents):
            if name not in known:
                members.setdefault(self.find(name), []).append(name)
        for root, names in members.items():
            yield Stream(tuple(names), self.reasons.get(root, ""))


def picture_floats(graph: onnx.GraphProto) -> set[str]:
    """Tensors that depend on the picture through floating-point tensors alone: not by its sizes, as masks do.

    Args:
        graph: A graph whose tensors have types; one of unknown type is taken for a float.
    """
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    reached = {value.name for value in graph.input}
    for node in graph.node:
        if not reached.isdisjoint(node.input):
            reached.update(n for n in node.output if n and types.get(n, onnx.TensorProto.FLOAT) in floats)
    return reached


def stays_float32(graph: onnx.GraphProto) -> set[str]:
    """Tensors that a function body keeps in float32 whatever the type around it: from its Cast to its CastLike.

    Where `inline_functions` wrote the body out, a second Cast to float32 is in the place of the CastLike.
    """
    import onnx

    kept: set[str] = set()
    for node in graph.node:
        if node.op_type == "Cast":
            kind = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            stays = kind == onnx.TensorProto.FLOAT and node.input[0] not in kept
        elif node.op_type == "CastLike":
            stays = node.input[1] in kept
        else:
            stays = any(name in kept for name in node.input)
        if stays:
            kept.update(node.output)
    return kept
