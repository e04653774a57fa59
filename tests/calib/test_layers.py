"""Which nodes are layers, what they are called, and their multiplications."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from agileir_export.calib.layers import Arithmetic, count_macs, find_layers
from agileir_export.models.layers import Block

from ..export import networks


@pytest.mark.parametrize("kind", networks.EXPORTED)
def test_every_linear_layer_and_convolution_is_found_by_its_module_path(kind: str, folder: Path) -> None:
    import torch

    artifact = networks.exported(folder, kind)
    layers = find_layers(onnx.load(artifact.path))
    model = networks.shared(kind)
    wanted = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and ".groupatt." not in name and ".cpb" not in name
    }
    wanted = {name for name in wanted if "bias_mlp" not in name and "relative" not in name}
    if artifact.spec.family == "agileir":
        wanted |= {f"{n}.attn.proj" for n, m in model.named_modules() if isinstance(m, Block)}
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names)
    assert wanted - {*names} == set()
    ends = ("conv_first", "upsample", "conv_before", "conv_up", "conv_hr", "conv_last")
    for layer in layers:
        assert layer.end == (".blocks." not in layer.name and layer.name.startswith(ends))


def test_multiplications_are_those_of_the_shapes(folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    graph = onnx.load(artifact.path)
    layers = find_layers(graph)
    arithmetic = count_macs(graph, artifact, layers)
    width = 12
    assert arithmetic.layers["conv_first"] == 9 * 3 * width
    assert arithmetic.layers["layers.0.residual_group.blocks.0.mlp.fc1"] == width * 2 * width
    assert arithmetic.layers["upsample.0"] == 9 * width * 12
    blocks, tokens = 3, 16
    assert arithmetic.operators == blocks * 2 * tokens * width  # q k^T and the weighted values
    names = [layer.name for layer in layers]
    share, outside = arithmetic.share(names)
    assert outside == 1.0
    assert share == pytest.approx(arithmetic.outside / (arithmetic.outside + arithmetic.operators))


def test_the_head_counts_every_pixel_it_makes(folder: Path) -> None:
    """The convolutions after the up-sampling work on 16 times as many pixels."""
    artifact = networks.exported(folder, "swinir-real")
    graph = onnx.load(artifact.path)
    arithmetic = count_macs(graph, artifact, find_layers(graph))
    assert arithmetic.layers["conv_last"] == 16 * 9 * 8 * 3


def test_decomposed_operators_offer_no_layers_of_their_own(folder: Path) -> None:
    whole, plain = (networks.exported(folder, "agileir", **o) for o in ({}, {"decomposed": True}))
    graphs = [onnx.load(artifact.path) for artifact in (whole, plain)]
    names = [[layer.name for layer in find_layers(graph)] for graph in graphs]
    assert names[0] == names[1]
    counted = [
        count_macs(graph, artifact, find_layers(graph)) for graph, artifact in zip(graphs, (whole, plain), strict=True)
    ]
    assert counted[0].layers == counted[1].layers
    assert counted[1].operators > 0


def test_shares_of_nothing_are_zero() -> None:
    assert Arithmetic({"a": 3.0, "b": 1.0}, 4.0).share([]) == (0.0, 0.0)
    assert Arithmetic({"a": 3.0, "b": 1.0}, 4.0).share(["a"]) == (0.375, 0.75)
