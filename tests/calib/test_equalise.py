"""Channel scales moved into weights: exact in float32, wherever that is allowed, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from agileir_export.calib.equalise import Equalisation, apply_equalisation, find_equalisation
from agileir_export.calib.layers import Layer, find_layers
from agileir_export.calib.statistics import Statistics, collect
from agileir_export.engines import create_session

from ..export import networks


def uneven(graph: onnx.ModelProto) -> None:
    """Makes the channels of every LayerNormalization, and of every value projection, very different."""
    random = np.random.default_rng(0)
    names = {name for node in graph.graph.node if node.op_type == "LayerNormalization" for name in node.input[1:2]}
    for tensor in graph.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name in names or tensor.name.endswith("qkv.weight^T"):
            factors = np.exp2(random.integers(-4, 5, value.shape[-1])).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value * factors, tensor.name))


def uneven_file(folder: Path, kind: str) -> tuple[onnx.ModelProto, list[Layer], np.ndarray]:
    """An exported graph made uneven, its layers, and a picture for it."""
    artifact = networks.exported(folder, kind)
    graph = onnx.load(artifact.path)
    uneven(graph)
    return graph, find_layers(graph), networks.images(1, artifact.spec.channels, 16, 16)


@pytest.mark.parametrize(
    "kind", ["agileir", "semanir", pytest.param("semanir-unet", marks=pytest.mark.slow), "swinir-light", "swinir-real"]
)
def test_the_output_keeps_its_bits(kind: str, folder: Path) -> None:
    graph, layers, image = uneven_file(folder, kind)
    found = find_equalisation(graph, layers, collect(graph, layers, [image]))
    places = {name.rpartition(".")[2] for entry in found for name in entry.layers}
    wanted = {"agileir": {"fc1"}, "swinir-real": {"fc1", "qkv", "proj", "2", "4"}}
    assert places >= wanted.get(kind, {"fc1", "qkv", "proj"})
    assert not places & {"fc2", "conv_first"}
    result = apply_equalisation(graph, layers, found)
    onnx.checker.check_model(result, full_check=True)
    before, after = (create_session(m.SerializeToString()).run(None, {"input": image})[0] for m in (graph, result))
    assert np.array_equal(before, after)
    statistics = collect(result, layers, [image])
    for entry in found:
        name = next(layer.input for layer in layers if layer.name == entry.layers[0])
        old = collect(graph, layers, [image])[name].channels
        assert np.array_equal(statistics[name].channels * np.exp2(entry.exponents).astype(np.float32), old)


def test_channels_become_alike(folder: Path) -> None:
    graph, layers, image = uneven_file(folder, "swinir-light")
    before = collect(graph, layers, [image])
    found = find_equalisation(graph, layers, before)
    after = collect(apply_equalisation(graph, layers, found), layers, [image])

    def spread(statistics: dict[str, Statistics], entry: Equalisation) -> float:
        name = next(layer.input for layer in layers if layer.name == entry.layers[0])
        return float(np.log2(statistics[name].channels).std())

    norms = [entry for entry in found if entry.layers[0].endswith("fc1")]
    assert norms
    assert all(spread(after, entry) < 0.8 * spread(before, entry) for entry in norms)


def test_a_norm_that_feeds_anything_else_is_left_alone(folder: Path) -> None:
    """AgileIR's first norm feeds the attention operator; a second reader forbids the other one, too."""
    graph, layers, image = uneven_file(folder, "agileir")
    statistics = collect(graph, layers, [image])
    producers = {entry.producer for entry in find_equalisation(graph, layers, statistics)}
    for node in graph.graph.node:
        if node.op_type == "LayerNormalization" and node.input[1].endswith("norm1.weight"):
            assert node.name not in producers
    layer = next(layer for layer in layers if layer.name.endswith("fc1"))
    graph.graph.node.append(onnx.helper.make_node("Neg", [layer.input], ["other"], name="other"))
    again = find_equalisation(graph, layers, statistics)
    assert len(again) == len(producers) - 1


def test_a_constant_that_others_read_is_copied(folder: Path) -> None:
    graph = onnx.load(networks.exported(folder, "swinir-light").path)
    norms = [n for n in graph.graph.node if n.op_type == "LayerNormalization" and "norm2" in n.input[1]]
    shared = norms[0].input[1]
    norms[1].input[1] = shared
    layers = find_layers(graph)
    entry = Equalisation((layers[0].name,), norms[0].name, (1,) * 12)
    result = apply_equalisation(graph, layers, [entry])
    first, second = (next(n for n in result.graph.node if n.name == norm.name) for norm in norms[:2])
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    assert np.array_equal(2 * constants[first.input[1]], constants[second.input[1]])
    with pytest.raises(KeyError):
        apply_equalisation(graph, layers, [Equalisation((), "nowhere", (1,))])
