"""Ranges are those of the tensors themselves, over all pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from agileir_export.errors import InputError
from agileir_export.export import OnnxArtifact
from agileir_export.parity import ParityImage
from agileir_export.parity.probe import OnnxProbe
from agileir_export.parity.ranges import float_tensors, measure_ranges, padded, range_images

from ..export import networks
from .tampering import tamper, with_nan


@pytest.fixture
def artifact(folder: Path) -> OnnxArtifact:
    return networks.exported(folder, "swinir-light")


def pictures(*sizes: tuple[int, int]) -> list[ParityImage]:
    return [ParityImage(f"noise {i}", networks.images(1, 3, *size, seed=i)[0]) for i, size in enumerate(sizes)]


def test_the_greatest_magnitude_of_every_tensor(artifact: OnnxArtifact) -> None:
    graph, images = onnx.load(artifact.path), pictures((9, 7), (5, 12))
    ranges = measure_ranges(artifact, graph, images)
    probe = OnnxProbe(graph, list(ranges))
    expected = np.zeros(len(ranges))
    for image in images:
        _, tensors = probe.run(padded(artifact, image))
        expected = np.maximum(expected, [np.abs(tensor).max() for tensor in tensors])
    np.testing.assert_allclose(list(ranges.values()), expected, rtol=1e-4)
    assert set(artifact.blocks) < set(ranges)


def test_every_computed_number_is_looked_at(artifact: OnnxArtifact) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(artifact.path))
    assert float_tensors(graph) == [name for node in graph.graph.node for name in node.output]


def test_integers_and_float32_islands_are_left_out(folder: Path) -> None:
    path = networks.exported(folder, "swinir-light", opset=18, decomposed=True).path
    graph = onnx.shape_inference.infer_shapes(onnx.load(path))
    names = set(float_tensors(graph))
    outputs = {kind: [n.output[0] for n in graph.graph.node if n.op_type == kind] for kind in ("Softmax", "Range")}
    for kind, found in outputs.items():
        assert found and not names & set(found), kind


def test_what_is_not_finite_is_named(artifact: OnnxArtifact, tmp_path: Path) -> None:
    broken = tamper(artifact, tmp_path / "nan.onnx", "layers.0.conv.bias", with_nan)
    with pytest.raises(InputError, match=r"is not finite in float32 on noise 0"):
        measure_ranges(broken, onnx.load(broken.path), pictures((8, 8)))


def test_masks_may_be_infinite(folder: Path) -> None:
    """In a key-semantic network written out, they come from a table of 0 and -inf, by the dictionary's bytes."""
    artifact = networks.exported(folder, "semanir", decomposed=True)
    graph = onnx.load(artifact.path)
    ranges = measure_ranges(artifact, graph, pictures((8, 8)))
    (table,) = (node.output[0] for node in graph.graph.node if node.op_type == "Log" and "byte" in node.output[0])
    assert ranges[table] == 0
    assert np.isfinite(list(ranges.values())).all() and min(ranges[block] for block in artifact.blocks) > 0


def test_default_pictures(artifact: OnnxArtifact) -> None:
    assert {image.pixels.shape for image in range_images(artifact)} == {(3, 128, 128)}
    assert len(range_images(artifact)) >= 4
    fixed = dataclasses.replace(artifact, fixed_sizes={"batch": 1, "height": 16, "width": 24})
    assert {image.pixels.shape for image in range_images(fixed)} == {(3, 16, 24)}


def test_no_picture(artifact: OnnxArtifact) -> None:
    with pytest.raises(InputError, match="no picture"):
        measure_ranges(artifact, onnx.load(artifact.path), [])
