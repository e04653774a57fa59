"""Pass: the network computes in half precision, between a float32 input and a float32 output."""

from __future__ import annotations

import enum
import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import Unsupported
from ...plugins import DOMAIN
from ..element_types import HALF_TYPES, permits, schema_of
from .graph_pass import GraphPass
from .key_features import key_feature_nodes

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

__all__ = ["Conversion", "lower_precision"]

FLOAT32 = np.dtype(np.float32)
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
NORMAL_RANGE = {"float16": (2.0**-14, 65504.0), "bfloat16": (2.0**-126, (2 - 2.0**-7) * 2.0**127)}
"""Smallest normal and largest number of a half precision."""


@dataclass
class Conversion:
    """What a conversion did.

    Attributes:
        precision: ``"float16"`` or ``"bfloat16"``.
        float32_nodes: Number of nodes that still compute in float32, by operator and reason.
        underflows: Number of weights that became zero, by tensor.
    """

    precision: str
    float32_nodes: Counter[tuple[str, str]] = field(default_factory=Counter)
    underflows: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        kept = [{"op": op, "reason": why, "count": n} for (op, why), n in sorted(self.float32_nodes.items())]
        return {"precision": self.precision, "float32_nodes": kept, "underflows": self.underflows}


class _Role(enum.Enum):
    """What a float tensor of the source stands for, which decides the type its readers see."""

    DATA = enum.auto()
    """Of the network: half precision."""
    ISLAND = enum.auto()
    """Of the network, and cast to float32 in the source: softmax and bias inside inlined operators."""
    FREE = enum.auto()
    """Depends on weights, constants and sizes alone: takes the type of whoever reads it."""


def lower_precision(
    conversion: Conversion, opset: int, refused: Mapping[str, str], kept: Mapping[str, str] | None = None
) -> GraphPass:
    """Gives every node of the network half-precision inputs and outputs, and its weights likewise.

    A node stays in float32, between Casts, where its schema in this opset knows no such type, where `refused` or `kept`
    says so, or where keys are chosen from its result (`key_feature_nodes`); where the source casts to float32 itself,
    that island stays until the source leaves it. Casts are made where a tensor is read in another type than it has,
    once a tensor and type, so that no two cancel. Integers, sizes and inputs that are float32 by definition (scales of
    Resize) are not touched. QuantizeLinear and DequantizeLinear get half-precision scales unless one of them is below
    the type's smallest normal number: then all stay float32, for a product takes both of one type.

    Requires the types of all tensors, none of them half or double, and no node with a subgraph. Ensures that input and
    output are float32 and that no two Casts cancel.

    Args:
        conversion: Names the precision; receives what stayed float32 and what underflowed.
        opset: Version of ONNX's own domain.
        refused: Reason by operator for nodes that must stay in float32.
        kept: Reason by the first result of single nodes that must.
    """

    def requires(graph: gs.Graph) -> str | None:
        import onnx_graphsurgeon as gs

        for node in graph.nodes:
            if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
                return f"node {node.name} ({node.op}) holds a subgraph"
        for tensor in graph.tensors().values():
            if tensor.dtype is None:
                return f"the type of {tensor.name} is unknown"
            if tensor.dtype in (np.float64, *map(_dtype, HALF_TYPES)):
                return f"{tensor.name} is {np.dtype(tensor.dtype)} already"
        return None

    def transform(graph: gs.Graph) -> None:
        _Lowering(graph, conversion, opset, refused, kept or {}).run()

    def ensures(graph: gs.Graph) -> str | None:
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype in map(_dtype, HALF_TYPES):
                return f"{tensor.name} is {conversion.precision}"
        for node in graph.nodes:
            before = node.i() if node.op == "Cast" and node.inputs[0].inputs else None
            if before is None or before.op != "Cast" or node.inputs[0].dtype != FLOAT32:
                continue
            if before.inputs[0].dtype == node.outputs[0].dtype:
                return f"the Casts {before.name} and {node.name} cancel"
        return None

    return GraphPass(f"lower precision to {conversion.precision}", requires, transform, ensures)


def _dtype(precision: str) -> np.dtype[Any]:
    """NumPy's name of a half precision."""
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(HALF_TYPES[precision])


class _Lowering:
    """One run of the pass over one graph."""

    def __init__(
        self,
        graph: gs.Graph,
        conversion: Conversion,
        opset: int,
        refused: Mapping[str, str],
        kept: Mapping[str, str],
    ) -> None:
        self.graph, self.conversion, self.opset = graph, conversion, opset
        self.refused, self.kept = refused, kept
        self.half = _dtype(conversion.precision)
        self.smallest, self.largest = NORMAL_RANGE[conversion.precision]
        self.originals = list(graph.tensors().values())  # kept alive: they are known by their id
        self.names = {tensor.name for tensor in self.originals}
        self.roles: dict[int, _Role] = {}
        self.copies: dict[tuple[int, np.dtype[Any]], gs.Tensor] = {}
        self.exact = key_feature_nodes(graph)
        self.nodes: list[gs.Node] = []

    def run(self) -> None:
        import onnx_graphsurgeon as gs

        for tensor in self.originals:
            if isinstance(tensor, gs.Constant) and tensor.dtype == FLOAT32:
                self.roles[id(tensor)] = _Role.FREE
        for tensor in self.graph.inputs:
            if tensor.dtype == FLOAT32:
                self.roles[id(tensor)] = _Role.DATA
        for node in list(self.graph.nodes):
            self.visit(node)
            self.nodes.append(node)
        self.graph.outputs = [self.float32_output(tensor) for tensor in self.graph.outputs]
        self.graph.nodes = self.nodes
        self.name_weights()

    def visit(self, node: gs.Node) -> None:
        """Decides the type a node computes in, and casts what it reads."""
        import onnx

        outputs = [tensor for tensor in node.outputs if tensor.name and tensor.dtype == FLOAT32]
        read = [position for position, tensor in enumerate(node.inputs) if id(tensor) in self.roles]
        roles = {self.roles[id(node.inputs[position])] for position in read} - {_Role.FREE}
        if node.op == "CastLike":
            like = self.roles.get(id(node.inputs[1]), _Role.FREE)
            if like is _Role.DATA:
                node.inputs[1] = self.in_type(node.inputs[1], self.half)
            self.settle(outputs, like, self.half if like is _Role.DATA else FLOAT32)
            return
        if node.op == "Cast" and outputs and roles == {_Role.ISLAND}:  # which the source leaves: see `inline_functions`
            node.attrs["to"] = int(onnx.helper.np_dtype_to_tensor_dtype(self.half))
            self.settle(outputs, _Role.DATA, self.half)
            return
        if node.op == "Cast" or not (outputs or node.op in QUANTISERS or node.domain == DOMAIN):
            if len(read) > 1:  # a comparison: both in one type
                wide = FLOAT32 if _Role.ISLAND in roles or not roles else self.half
                for position in read:
                    node.inputs[position] = self.in_type(node.inputs[position], wide)
            self.settle(outputs, _Role.ISLAND if roles else _Role.FREE, FLOAT32)
            return
        if node.op in QUANTISERS and not roles:
            roles = {_Role.DATA}
        if not roles:
            self.settle(outputs, _Role.FREE, FLOAT32)
            return
        reason = self.reason(node, roles)
        dtype = FLOAT32 if reason else self.half
        schema = schema_of(node.op, node.domain or "", self.opset)
        for position in read:
            fixed = schema is not None and not permits(schema, position, self.conversion.precision)
            node.inputs[position] = self.in_type(node.inputs[position], FLOAT32 if fixed else dtype)
        self.settle(outputs, _Role.DATA if _Role.DATA in roles else _Role.ISLAND, dtype)
        if reason:
            self.conversion.float32_nodes[node.op, reason] += 1

    def settle(self, outputs: list[gs.Tensor], role: _Role, dtype: np.dtype[Any]) -> None:
        """Records what the results of a node are."""
        for tensor in outputs:
            self.roles[id(tensor)] = role
            tensor.dtype = dtype

    def reason(self, node: gs.Node, roles: set[_Role]) -> str | None:
        """Why a node computes in float32; None where it computes in half precision."""
        precision = self.conversion.precision
        if _Role.ISLAND in roles:
            mixed = _Role.DATA in roles
            return "reads what is float32 by intent" if mixed else "float32 by intent of the operator it belongs to"
        if id(node) in self.exact:
            return f"keys are chosen from it, and nearly equal ones flip in {precision}"
        if node.op in self.refused:
            return self.refused[node.op]
        if node.outputs and node.outputs[0].name in self.kept:
            return self.kept[node.outputs[0].name]
        schema = schema_of(node.op, node.domain or "", self.opset)
        if schema is None:
            return "no schema says which types it takes"
        places = [(False, p) for p, tensor in enumerate(node.inputs) if self.roles.get(id(tensor)) is _Role.DATA]
        if node.op in QUANTISERS:
            places.append((False, 1))
        places += [(True, p) for p, tensor in enumerate(node.outputs) if tensor.name and tensor.dtype == FLOAT32]
        if not all(permits(schema, position, precision, output) for output, position in places):
            return f"takes no {precision} in opset {self.opset}"
        return self.scale_reason(node) if node.op in QUANTISERS else None

    def scale_reason(self, node: gs.Node) -> str | None:
        """Why scales of quantisation stay float32. All do where one must: a product takes both of one type."""
        import onnx_graphsurgeon as gs

        if not isinstance(node.inputs[1], gs.Constant):
            return "its scale is computed"
        return f"its scales leave the range of {self.conversion.precision}" if self.scales_out_of_range else None

    @functools.cached_property
    def scales_out_of_range(self) -> bool:
        """Whether any constant scale is below the type's smallest normal number, or above its greatest."""
        import onnx_graphsurgeon as gs

        scales = (node.inputs[1] for node in self.graph.nodes if node.op in QUANTISERS)
        values = [np.abs(scale.values.astype(np.float64)) for scale in scales if isinstance(scale, gs.Constant)]
        return any(v.min() < self.smallest or v.max() > self.largest for v in values)

    def in_type(self, tensor: gs.Tensor, dtype: np.dtype[Any]) -> gs.Tensor:
        """The tensor in a type: itself, a converted constant, or the result of a Cast."""
        import onnx
        import onnx_graphsurgeon as gs

        if tensor.dtype == dtype:
            return tensor
        key = id(tensor), dtype
        if key in self.copies:
            return self.copies[key]
        name = self.fresh(f"{tensor.name}_{dtype.name}")
        if isinstance(tensor, gs.Constant):
            copy: gs.Tensor = gs.Constant(name, self.converted(tensor))
        else:
            copy = gs.Variable(name, dtype, tensor.shape)
            to = int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
            self.nodes.append(gs.Node("Cast", self.fresh(f"{name}_cast"), {"to": to}, [tensor], [copy]))
        self.copies[key] = copy
        return copy

    def converted(self, constant: gs.Constant) -> np.ndarray[Any, Any]:
        """A constant in half precision.

        Raises:
            Unsupported: A value is beyond the type's range.
        """
        values = constant.values
        with np.errstate(over="ignore", under="ignore"):
            result: np.ndarray[Any, Any] = values.astype(self.half)
        beyond = np.isfinite(values) & ~np.isfinite(result.astype(np.float32))
        if beyond.any():
            worst = values[beyond][np.abs(values[beyond]).argmax()]
            raise Unsupported(
                f"The weights {constant.name} hold {worst:.6g}: {self.conversion.precision} ends at "
                f"{self.largest:.6g}.",
                fix="Choose bfloat16, whose range is float32's, or keep float32.",
            )
        if lost := int(np.count_nonzero((values != 0) & (result == 0))):
            self.conversion.underflows[constant.name] = lost
        return result

    def float32_output(self, tensor: gs.Tensor) -> gs.Tensor:
        """The result of the graph in float32, under its own name."""
        if tensor.dtype != self.half:
            return tensor
        name = tensor.name
        tensor.name = self.fresh(f"{name}_{self.half.name}")
        output = self.in_type(tensor, FLOAT32)
        output.name = name
        return output

    def name_weights(self) -> None:
        """A weight keeps its name where only its half-precision form is read."""
        import onnx_graphsurgeon as gs

        used = {id(tensor) for node in self.nodes for tensor in node.inputs}
        originals = {id(tensor): tensor for tensor in self.originals if isinstance(tensor, gs.Constant)}
        for (source, _), copy in self.copies.items():
            if source in originals and source not in used:
                copy.name, originals[source].name = originals[source].name, copy.name

    def fresh(self, name: str) -> str:
        """The name, or one like it that is not taken."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name
