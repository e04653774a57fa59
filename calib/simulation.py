"""One session that computes a graph with any of its layers in INT8: what each loses is asked without building files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.onnxruntime.runner import create_session
from ..engines.runner import Images
from ..errors import InternalError
from ..parity.probe import dictionary_tensors
from .layers import Layer
from .quantise import insert_qdq

if TYPE_CHECKING:
    import onnx

__all__ = ["Simulation"]

SWITCH = "int8:"


class Simulation:
    """The fully quantised graph with a switch a layer: on, it multiplies what Q/DQ let through; off, the float values.

    Args:
        model: The graph in float32; not changed.
        layers: Its layers.
        thresholds: By layer name, see `insert_qdq`.

    Raises:
        InternalError: The graph could not be quantised.
    """

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], thresholds: Mapping[str, float]) -> None:
        import onnx

        self.names = [layer.name for layer in layers]
        graph = insert_qdq(model, layers, thresholds, self.names)
        kept = {tensor.name for tensor in graph.graph.initializer}
        weights = {layer.weight for layer in layers} - kept  # the quantised graph holds them in int8 only
        graph.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in weights)
        _add_switches(graph, layers)
        self.dictionaries = dictionary_tensors(graph)
        graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.dictionaries)
        self.session = create_session(graph.SerializeToString())

    def run(self, images: Images, chosen: Collection[str]) -> tuple[Images, Sequence[Any]]:
        """Runs padded images ``[B, C, H, W]`` with the chosen layers in INT8; the dictionaries of the stages, too."""
        unknown = set(chosen) - set(self.names)
        if unknown:
            raise InternalError(f"There is no layer {min(unknown)}.")
        feeds: dict[str, Any] = {SWITCH + name: np.array(name in chosen) for name in self.names}
        output, *dictionaries = self.session.run(None, {self.session.get_inputs()[0].name: images, **feeds})
        return output, dictionaries


def _add_switches(model: onnx.ModelProto, layers: Sequence[Layer]) -> None:
    import onnx

    by_name = {layer.node: layer for layer in layers}
    nodes = []
    for node in model.graph.node:
        if layer := by_name.get(node.name):
            switch = SWITCH + layer.name
            model.graph.input.append(onnx.helper.make_tensor_value_info(switch, onnx.TensorProto.BOOL, []))
            for index, original in enumerate((layer.input, layer.weight)):
                taken = f"{switch}/{index}"
                nodes.append(onnx.helper.make_node("Where", [switch, node.input[index], original], [taken], name=taken))
                node.input[index] = taken
        nodes.append(node)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
