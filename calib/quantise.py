"""Q/DQ into a graph, by ONNX Runtime's quantiser, in the one form that TensorRT accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np

from ..engines.audit.requested_types import quantised_nodes
from ..errors import InternalError
from ..quiet import quiet
from .layers import LAYER_TYPES, Layer

if TYPE_CHECKING:
    import onnx

__all__ = ["insert_qdq", "quantised_layers"]

OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": False,
    "OpTypesToExcludeOutputQuantization": list(LAYER_TYPES),
}
"""TensorRT refuses zero points other than 0 and DequantizeLinear of int32 biases. Weights are stored in int8, results
stay in the wider type."""

OWN_INPUT = "/int8_input"


def insert_qdq(
    model: onnx.ModelProto, layers: Sequence[Layer], thresholds: Mapping[str, float], chosen: Collection[str]
) -> onnx.ModelProto:
    """A copy of a float32 graph in which the chosen layers multiply int8 by int8.

    Their input is quantised with one scale, symmetrically; their weights with one scale an output channel. Every other
    reader of the input still reads it in float. Functions, names and metadata are kept.

    Args:
        model: The graph; not changed.
        layers: Its layers.
        thresholds: By layer name, the absolute value of its input that becomes 127.
        chosen: Names of the layers to quantise.

    Raises:
        InternalError: The quantiser did something else than was asked for.
    """
    import onnx
    import onnx_ir
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    copy = deepcopy(model)
    wanted = [layer for layer in layers if layer.name in chosen]
    if not wanted:
        return copy
    typed = onnx.shape_inference.infer_shapes(copy)
    add_infer_metadata(typed)  # types are known: otherwise the quantiser infers them again through a file
    _separate_inputs(typed, wanted)
    ranges = {}
    for layer in wanted:
        limit = np.float32(thresholds[layer.name])
        ranges[layer.node + OWN_INPUT] = (-limit, limit)
    with quiet():
        quantiser = QDQQuantizer(
            typed,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[layer.node for layer in wanted],
            nodes_to_exclude=[],
            op_types_to_quantize=list(LAYER_TYPES),
            extra_options=OPTIONS,
        )
        result: onnx.ModelProto = quantiser.quantize_model()
    _join_inputs(result)
    ordered = onnx_ir.serde.deserialize_graph(result.graph)
    ordered.sort()  # the quantiser appends its nodes
    result.graph.CopyFrom(onnx_ir.to_proto(ordered))
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    del result.metadata_props[:]  # the quantiser adds an entry of its own
    result.metadata_props.extend(model.metadata_props)
    del result.graph.value_info[:]
    result.graph.value_info.extend(model.graph.value_info)
    if (found := quantised_layers(result, layers)) != {layer.name for layer in wanted}:
        odd = sorted(found ^ {layer.name for layer in wanted})
        raise InternalError(f"The quantiser disagrees about {len(odd)} layers: {', '.join(odd[:3])}.")
    return result


def _separate_inputs(model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
    """Gives every layer an input tensor of its own: the quantiser would hand quantised values to all readers."""
    import onnx

    types = {entry.name: entry for entry in (*model.graph.value_info, *model.graph.input)}
    nodes = {node.name: node for node in model.graph.node}
    for layer in layers:
        own = layer.node + OWN_INPUT
        node = nodes[layer.node]
        model.graph.node.append(onnx.helper.make_node("Identity", [layer.input], [own], name=own))
        node.input[0] = own
        info = deepcopy(types[layer.input])
        info.name = own
        model.graph.value_info.append(info)


def _join_inputs(model: onnx.ModelProto) -> None:
    """Takes those tensors out again: QuantizeLinear reads what the layer read."""
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.name.endswith(OWN_INPUT)}
    kept = [node for node in model.graph.node if not node.name.endswith(OWN_INPUT)]
    for node in kept:
        for index, tensor in enumerate(node.input):
            if tensor in sources:
                node.input[index] = sources[tensor]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def quantised_layers(model: onnx.ModelProto, layers: Sequence[Layer]) -> set[str]:
    """Names of the layers both of whose factors come from a DequantizeLinear, directly or through a Cast.

    Scales below float16's range stay float32, and a Cast then follows; TensorRT's builder sees through it.
    """
    nodes = set(quantised_nodes(model))
    return {layer.name for layer in layers if layer.node in nodes}
