"""Moving the spread of channels from activations into weights, where that is exact.

Int8 activations have one scale for all channels: a channel that is large makes the steps of the small ones coarse.
Dividing channel c of a layer's input by s_c and multiplying the layer's weights for it by s_c changes nothing that is
computed, and s_c = sqrt(max|x_c| / max|w_c|) balances both (SmoothQuant, arXiv 2211.10438, equation 4 with alpha 0.5).
The division disappears in the weights of what writes the input, where that is linear in them channel by channel:

* the affine of a LayerNormalization, read by nothing but layers;
* the value part of a query-key-value projection before an attention operator: its output is linear in the values;
* a convolution before a LeakyRelu or Relu, which keep positive factors (cross-layer equalisation, arXiv 1906.04721).

The factors are powers of two, so in float32 every product and sum keeps its mantissa: the graph computes the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..plugins import OPERATORS
from .layers import Layer
from .statistics import Statistics

if TYPE_CHECKING:
    import onnx

__all__ = ["Equalisation", "apply_equalisation", "find_equalisation"]

ATTENTION = {name: each.inputs.index(each.values_of) for name, each in OPERATORS.items() if each.values_of}
"""By operator, which input is q | k | v: the output is linear in v, channel by channel."""

HOMOGENEOUS = ("LeakyRelu", "Relu")
LARGEST_EXPONENT = 6

Exponents = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Equalisation:
    """One place where channels are scaled.

    Attributes:
        layers: Names of the layers that read the tensor.
        producer: Name of the node whose constants take the factors.
        exponents: By channel of the tensor, k: it is divided by 2^k.
    """

    layers: tuple[str, ...]
    producer: str
    exponents: tuple[int, ...]


@dataclass(frozen=True)
class _Place:
    """A producer whose output channels can be scaled, and the layers that read them.

    Attributes:
        layers: The readers.
        producer: Node that takes the factors.
        constants: Constants to divide: the node that reads one, its name, and the axis of the channels.
        values: Whether only the last third of that axis (the values of q | k | v) is meant.
    """

    layers: tuple[Layer, ...]
    producer: onnx.NodeProto
    constants: tuple[tuple[str, str, int], ...]
    values: bool = False


def find_equalisation(
    model: onnx.ModelProto, layers: Sequence[Layer], statistics: Mapping[str, Statistics]
) -> list[Equalisation]:
    """The places of a graph, with the factors its statistics ask for.

    Args:
        model: The graph in float32.
        layers: Its layers.
        statistics: By tensor name, see `collect`.

    Returns:
        Those where at least one factor is not 1.
    """
    weights = _Constants(model)
    found = []
    for place in _places(model, layers):
        inputs = statistics[place.layers[0].input].channels.astype(np.float64)
        largest = np.max([weights.rows(layer) for layer in place.layers], 0).astype(np.float64)
        exponents = _exponents(inputs, largest)
        if exponents.any():
            names = tuple(layer.name for layer in place.layers)
            found.append(Equalisation(names, place.producer.name, tuple(int(k) for k in exponents)))
    return found


def _exponents(inputs: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> Exponents:
    """round(log2 sqrt(x / w)) around its median; 0 for channels without input or weight."""
    alive = (inputs > 0) & (weights > 0)
    if not alive.any():
        return np.zeros(len(inputs), np.int32)
    wished = np.zeros(len(inputs))
    wished[alive] = np.log2(inputs[alive] / weights[alive]) / 2
    wished[alive] -= np.median(wished[alive])
    exponents: Exponents = np.clip(np.rint(wished), -LARGEST_EXPONENT, LARGEST_EXPONENT).astype(np.int32)
    return exponents


def apply_equalisation(
    model: onnx.ModelProto, layers: Sequence[Layer], equalisations: Sequence[Equalisation]
) -> onnx.ModelProto:
    """A copy of the graph with the factors in its constants; it computes the same bits in float32.

    Raises:
        KeyError: The graph has no such place.
    """
    copy = deepcopy(model)
    weights = _Constants(copy)
    places = {place.producer.name: place for place in _places(copy, layers)}
    for equalisation in equalisations:
        place = places[equalisation.producer]
        factors: npt.NDArray[np.float32] = np.exp2(np.array(equalisation.exponents)).astype(np.float32)
        for node, name, axis in place.constants:
            weights.scale(node, name, np.reciprocal(factors), axis, place.values)
        for layer in place.layers:
            weights.scale(layer.node, layer.weight, factors, _input_axis(layer))
    return copy


def _input_axis(layer: Layer) -> int:
    """Axis of a layer's weight that belongs to the channels of its input."""
    return 1 if layer.type == "Conv" else 0


def _places(model: onnx.ModelProto, layers: Sequence[Layer]) -> list[_Place]:
    """Every place of the three kinds."""
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    outputs = {entry.name for entry in model.graph.output}
    by_node = {layer.node: layer for layer in layers}
    makers = {tensor: node for node in model.graph.node for tensor in node.output}

    def fed(node: onnx.NodeProto) -> tuple[Layer, ...] | None:
        """The layers that read a node's output, through transpositions; None where something else reads it, too."""
        found: list[Layer] = []
        if set(node.output) & outputs:
            return None
        for reader in readers.get(node.output[0], []):
            if reader.op_type == "Transpose" and (below := fed(reader)):
                found += below
            elif (layer := by_node.get(reader.name)) and _plain(reader, layer, node.output[0]):
                found.append(layer)
            else:
                return None
        return tuple(found) or None

    places = []
    for node in model.graph.node:
        readers_of = fed(node) if node.op_type in ("LayerNormalization", *HOMOGENEOUS, *ATTENTION) else None
        if not readers_of:
            continue
        if node.op_type == "LayerNormalization":
            affine = tuple((node.name, name, 0) for name in node.input[1:] if name)
            if all(name in constants for _, name, _ in affine):
                places.append(_Place(readers_of, node, affine))
        elif node.op_type in ATTENTION:
            if place := _values_of(node, readers_of, makers, readers, by_node, constants):
                places.append(place)
        else:
            before = makers.get(node.input[0])
            layer = by_node.get(before.name) if before is not None else None
            if before is not None and layer and layer.type == "Conv" and len(readers[layer.output]) == 1:
                own = tuple((before.name, name, 0) for name in before.input[1:])
                places.append(_Place(readers_of, before, own))
    return places


def _plain(node: onnx.NodeProto, layer: Layer, tensor: str) -> bool:
    """Whether the channels of a tensor are the rows of the layer's weight: no groups, no transposed Gemm."""
    attributes = {entry.name: entry for entry in node.attribute}
    grouped = "group" in attributes and attributes["group"].i != 1
    return layer.input == tensor and not grouped and layer.type != "Gemm"


def _values_of(
    attention: onnx.NodeProto,
    layers: tuple[Layer, ...],
    makers: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, Sequence[onnx.NodeProto]],
    by_node: Mapping[str, Layer],
    constants: Mapping[str, tuple[int, ...]],
) -> _Place | None:
    """The projection before an attention operator: a product, a bias, and nothing else that reads either."""
    add = makers.get(attention.input[ATTENTION[attention.op_type]])
    if add is None or add.op_type != "Add" or len(readers[add.output[0]]) != 1:
        return None
    biases = [tensor for tensor in add.input if tensor in constants]
    products = [makers[tensor] for tensor in add.input if tensor in makers]
    if len(biases) != 1 or len(products) != 1 or len(constants[biases[0]]) != 1:
        return None
    layer = by_node.get(products[0].name)
    if layer is None or layer.type != "MatMul" or len(readers[layer.output]) != 1:
        return None
    return _Place(layers, products[0], ((products[0].name, layer.weight, 1), (add.name, biases[0], 0)), values=True)


class _Constants:
    """The constants of a graph, changed for one node without touching others that read them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def rows(self, layer: Layer) -> npt.NDArray[np.float32]:
        """Greatest absolute weight for each channel of a layer's input."""
        from onnx import numpy_helper

        weight = np.abs(numpy_helper.to_array(self.tensors[layer.weight]))
        axis = _input_axis(layer)
        found: npt.NDArray[np.float32] = weight.max(tuple(i for i in range(weight.ndim) if i != axis))
        return found

    def scale(
        self, node: str, name: str, factors: npt.NDArray[np.float32], axis: int, last_third: bool = False
    ) -> None:
        """Multiplies a constant along an axis; other nodes that read it keep the old one."""
        from onnx import numpy_helper

        readers = [reader for reader in self.model.graph.node if name in reader.input]
        own = readers if len(readers) == 1 else [reader for reader in readers if reader.name == node]
        value = numpy_helper.to_array(self.tensors[name]).copy()
        part = np.moveaxis(value, axis, -1)  # a view: changes reach the value
        if last_third:
            part = part[..., 2 * part.shape[-1] // 3 :]
        part *= factors
        target = name
        if len(own) < len(readers):
            target = f"{name}@{node}"
            for reader in own:
                for index, tensor in enumerate(reader.input):
                    if tensor == name:
                        reader.input[index] = target
        tensor = numpy_helper.from_array(value, target)
        if target == name:
            self.tensors[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.tensors[target] = self.model.graph.initializer[-1]
