"""Q/DQ into a graph, by ONNX Runtime's quantiser, in the one form that TensorRT accepts."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InternalError
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
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    copy = type(model)()
    copy.CopyFrom(model)
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
    with _quiet():
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
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    del result.metadata_props[:]  # the quantiser adds an entry of its own
    result.metadata_props.extend(model.metadata_props)
    _toposort(result)
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
        info = onnx.ValueInfoProto()
        info.CopyFrom(types[layer.input])
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


def _toposort(model: onnx.ModelProto) -> None:
    """Nodes in an order in which inputs come before their readers; as close to the given order as that allows."""
    ready = {entry.name for entry in (*model.graph.input, *model.graph.initializer)} | {""}
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    ordered: list[onnx.NodeProto] = []
    for start in list(model.graph.node):
        stack = [start]
        while stack:
            node = stack[-1]
            missing = [tensor for tensor in node.input if tensor not in ready]
            if missing:
                stack.extend(makers[tensor] for tensor in reversed(missing))
                continue
            stack.pop()
            if node.output[0] not in ready:
                ordered.append(node)
                ready.update(node.output)
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def quantised_layers(model: onnx.ModelProto, layers: Sequence[Layer]) -> set[str]:
    """Names of the layers both of whose factors come from a DequantizeLinear, be it by way of a Cast.

    Scales below float16's range stay float32, and a Cast then follows; TensorRT's builder sees through it.
    """
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    dequantised |= {node.output[0] for node in casts if node.input[0] in dequantised}
    nodes = {node.name: node for node in model.graph.node}
    return {layer.name for layer in layers if set(nodes[layer.node].input[:2]) <= dequantised}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's remarks off the screen; its errors come through."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
