"""The layers of a graph that can compute in INT8, and their share of its multiplications."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..parity.probe import OnnxProbe
from ..plugins import DOMAIN, OPERATORS

if TYPE_CHECKING:
    import onnx

    from ..export import OnnxArtifact

__all__ = ["LAYER_TYPES", "Arithmetic", "Layer", "count_macs", "find_layers", "multiplications"]

LAYER_TYPES = ("Conv", "MatMul", "Gemm")
"""Node types that are quantised, where their second input is a constant."""

END_PREFIXES = ("conv_first", "conv_before_upsample", "upsample", "conv_up", "conv_hr", "conv_last")
"""Modules between the image and the features, under their released names (SwinIR): float unless asked for."""

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product with constant weights.

    Attributes:
        name: Module path, such as ``"layers.0.conv"``.
        node: Name of its node.
        type: ``"Conv"``, ``"MatMul"`` or ``"Gemm"``.
        input: Tensor it reads.
        weight: Constant it multiplies with.
        output: Tensor it writes.
        end: Whether it stands between the image and the features: first convolution or reconstruction head.
    """

    name: str
    node: str
    type: str
    input: str
    weight: str
    output: str
    end: bool

    @property
    def input_axis(self) -> int:
        """Axis of the channels of its input."""
        return 1 if self.type == "Conv" else -1


@dataclass(frozen=True)
class Arithmetic:
    """Multiply-accumulate operations for one pixel of the network's input.

    Attributes:
        layers: By layer name.
        operators: Of the attention operators and of products of two computed tensors, which stay float.
    """

    layers: Mapping[str, float]
    operators: float

    @property
    def outside(self) -> float:
        """Of all layers: everything outside the operators."""
        return sum(self.layers.values())

    def share(self, names: Iterable[str]) -> tuple[float, float]:
        """Share (0..1) of the named layers in all operations, and in those outside the operators."""
        counted = sum(self.layers[name] for name in names)
        return counted / (self.outside + self.operators), counted / self.outside


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers of a graph, in its order. Nodes without a name are given one, in place."""
    constants = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    layers: list[Layer] = []
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        if node.op_type not in LAYER_TYPES or node.domain or node.input[1] not in constants:
            continue
        if node.input[0] in constants:
            continue
        name = _module_path(node, readers.get(node.output[0], []), constants)
        end = name.startswith(END_PREFIXES)
        layers.append(Layer(name, node.name, node.op_type, node.input[0], node.input[1], node.output[0], end))
    return _unique(layers)


def _module_path(node: onnx.NodeProto, readers: Sequence[onnx.NodeProto], constants: set[str]) -> str:
    """From the weight's name, else from that of the bias added next."""
    names = [*node.input[1:]]
    if len(readers) == 1 and readers[0].op_type == "Add":
        names += [tensor for tensor in readers[0].input if tensor in constants]
    for name in names:
        for ending in (".weight^T", ".weight", ".bias", "_weight", "_bias"):
            if name.endswith(ending):
                return str(name.removesuffix(ending))
    return str(node.name)


def _unique(layers: Sequence[Layer]) -> list[Layer]:
    """A path that occurs twice (one weight read by two nodes) is told apart by its node."""
    paths = Counter(layer.name for layer in layers)
    return [
        layer if paths[layer.name] == 1 else dataclasses.replace(layer, name=f"{layer.name}@{layer.node}")
        for layer in layers
    ]


def count_macs(model: onnx.ModelProto, artifact: OnnxArtifact, layers: Sequence[Layer]) -> Arithmetic:
    """Counts multiply-accumulate operations from the shapes a small image gives rise to.

    Operators are counted by their `cost` (every product of their definition), layers by their output and weight:
    numel(output) times the inputs of one output value.
    """
    spec, fixed = artifact.spec, artifact.fixed_sizes
    height, width = (fixed.get(name, spec.pad_multiple) for name in ("height", "width"))
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    operators = [node for node in model.graph.node if node.domain == DOMAIN]
    quantisable = {layer.node for layer in layers}
    products = [node for node in model.graph.node if node.op_type in LAYER_TYPES and node.name not in quantisable]
    wanted = {layer.output for layer in layers}
    for node in (*operators, *products):
        wanted |= {tensor for tensor in (*node.input, *node.output) if tensor and tensor not in constants}
    names = sorted(wanted - {entry.name for entry in model.graph.input} - {entry.name for entry in model.graph.output})
    image = np.zeros((1, spec.channels, height, width), np.float32)
    output, found = OnnxProbe(model, names).run(image)
    shapes = {**constants, **{name: value.shape for name, value in zip(names, found, strict=True)}}
    shapes |= {model.graph.input[0].name: image.shape, model.graph.output[0].name: output.shape}
    pixels = height * width
    by_layer = {
        layer.name: math.prod(shapes[layer.output]) * _products(shapes[layer.weight], layer.type) / pixels
        for layer in layers
    }
    inside = 0.0
    for node in operators:
        attributes = {entry.name: entry.i for entry in node.attribute}
        given = [shapes[tensor] for tensor in node.input]
        inside += OPERATORS[node.op_type].cost(given, attributes, FLOAT_BYTES).flops / 2 / pixels
    for node in products:
        inside += math.prod(shapes[node.output[0]]) * _products(shapes[node.input[1]], node.op_type) / pixels
    return Arithmetic(by_layer, inside)


def multiplications(artifact: OnnxArtifact) -> float:
    """Multiply-accumulate operations of a file for one pixel of its input, all operators counted."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(artifact.model)  # `find_layers` names nodes in place
    counted = count_macs(model, artifact, find_layers(model))
    return counted.outside + counted.operators


def _products(weight: Sequence[int], kind: str) -> int:
    """Multiplications for one output value."""
    return math.prod(weight[1:]) if kind == "Conv" else weight[-2]
