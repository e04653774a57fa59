"""Q/DQ in the one form TensorRT accepts, and the session that simulates it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from agileir_export.calib.layers import Layer, find_layers
from agileir_export.calib.quantise import insert_qdq, quantised_layers
from agileir_export.calib.simulation import Simulation
from agileir_export.calib.statistics import collect
from agileir_export.engines import create_session
from agileir_export.errors import InternalError

from ..export import networks

KINDS = ("agileir", "swinir-light", "semanir-unet")


def prepared(folder: Path, kind: str) -> tuple[onnx.ModelProto, list[Layer], dict[str, float], np.ndarray]:
    artifact = networks.exported(folder, kind)
    graph = onnx.load(artifact.path)
    layers = find_layers(graph)
    image = networks.images(1, artifact.spec.channels, 16, 24)
    statistics = collect(graph, layers, [image])
    return graph, layers, {layer.name: statistics[layer.input].largest for layer in layers}, image


def run(graph: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return create_session(graph.SerializeToString()).run(None, {"input": image})[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_is_the_one_tensorrt_accepts(kind: str, folder: Path) -> None:
    graph, layers, thresholds, _ = prepared(folder, kind)
    chosen = [layer.name for layer in layers if not layer.end]
    result = insert_qdq(graph, layers, thresholds, chosen)
    onnx.checker.check_model(result, full_check=True)
    assert quantised_layers(result, layers) == set(chosen)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
            assert zero.dtype == np.int8 and not zero.any()
            assert (scale > 0).all()
            per_channel = node.input[0] in constants
            assert scale.ndim == (1 if per_channel else 0)
    stored = {node.input[0] for node in result.graph.node if node.op_type == "DequantizeLinear"} & set(constants)
    assert len(stored) == len(chosen)
    assert {constants[name].data_type for name in stored} == {TensorProto.INT8}
    for own in ("functions", "metadata_props", "opset_import", "producer_name", "ir_version"):
        assert getattr(result, own) == getattr(graph, own), own
    sizes = networks.named_sizes(result, 1, graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value, 16, 24)
    assert {len(values) for values in sizes.values()} == {1}, "one name is one size"
    biases = [name for name, tensor in constants.items() if tensor.data_type == TensorProto.INT32]
    assert not biases
    assert {node.op_type for node in result.graph.node} - {node.op_type for node in graph.graph.node} == {
        "QuantizeLinear",
        "DequantizeLinear",
    }


def test_other_readers_of_an_input_read_it_in_float(folder: Path) -> None:
    """The first convolution's input is the image; with a second, float reader nothing changes for that one."""
    graph, layers, thresholds, _ = prepared(folder, "swinir-light")
    layer = next(layer for layer in layers if layer.name == "layers.0.residual_group.blocks.0.mlp.fc1")
    reader = onnx.helper.make_node("Neg", [layer.input], ["other"], name="other")
    graph.graph.node.append(reader)
    result = insert_qdq(graph, layers, thresholds, [layer.name])
    (found,) = [node for node in result.graph.node if node.name == "other"]
    assert found.input[0] == layer.input


def test_nothing_chosen_is_the_same_graph_and_the_source_is_not_changed(folder: Path) -> None:
    graph, layers, thresholds, _ = prepared(folder, "swinir-light")
    before = graph.SerializeToString()
    assert insert_qdq(graph, layers, thresholds, []) == graph
    first = insert_qdq(graph, layers, thresholds, ["layers.0.conv"])
    assert first.SerializeToString() == insert_qdq(graph, layers, thresholds, ["layers.0.conv"]).SerializeToString()
    assert graph.SerializeToString() == before


def test_a_layer_computes_what_its_definition_says(folder: Path) -> None:
    """One convolution against int8 arithmetic in NumPy."""
    graph, layers, thresholds, image = prepared(folder, "swinir-light")
    layer = next(layer for layer in layers if layer.name == "conv_first")
    result = insert_qdq(graph, layers, thresholds, [layer.name])
    for model in (graph, result):
        for name in (layer.input, layer.output):
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    _, given, found = create_session(result.SerializeToString()).run(None, {"input": image})
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    weight, bias = constants["conv_first.weight"], constants["conv_first.bias"]
    scale = thresholds[layer.name] / 127
    q = np.clip(np.rint(given / np.float32(scale)), -128, 127)
    scales = np.abs(weight).max((1, 2, 3)) / 127
    w = np.rint(weight / scales[:, None, None, None])
    padded = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = given.shape[2:]
    expected = sum(
        np.einsum("bchw,oc->bohw", padded[:, :, i : i + rows, j : j + columns], w[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    expected = expected * (scales * scale)[None, :, None, None] + bias[None, :, None, None]
    # a value on the edge between two steps may round either way: one step of one weight
    tolerance = 2 * scale * float(np.abs(weight).max())
    assert np.abs(found - expected).max() <= tolerance
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_simulation_computes_any_choice_as_its_file(kind: str, folder: Path) -> None:
    graph, layers, thresholds, image = prepared(folder, kind)
    simulation = Simulation(graph, layers, thresholds)
    names = [layer.name for layer in layers]
    exact = run(graph, image)
    # switched off, it differs by what the runtime does not fuse; choices move near-ties of rounding by one step
    assert networks.psnr(simulation.run(image, [])[0], exact) > 110
    for chosen in (names, names[::2], names[-1:]):
        written = run(insert_qdq(graph, layers, thresholds, chosen), image)
        lost = networks.psnr(written, exact)
        assert networks.psnr(simulation.run(image, chosen)[0], written) > lost + 3
    with pytest.raises(InternalError, match="no layer nowhere"):
        simulation.run(image, ["nowhere"])
