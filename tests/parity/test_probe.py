"""Intermediate tensors of the ONNX file and of PyTorch are the same tensors, and dictionaries can be handed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from agileir_export.export import OnnxArtifact
from agileir_export.images.resizing import pad_to_multiple
from agileir_export.parity.probe import OnnxProbe, block_output, dictionary_tensors, record_dictionaries

from ..export import networks

SIZE = (5, 7)


def given(kind: str) -> tuple[Any, Any]:
    """An image, and how it enters the graph."""
    spec = networks.shared(kind).spec
    image = networks.images(1, spec.channels, *SIZE)
    return image, pad_to_multiple(image, spec.pad_multiple)[0]


@pytest.mark.parametrize("kind", networks.ONE_A_FAMILY)
def test_every_block_is_the_same_tensor(kind: str, folder: Path) -> None:
    artifact, model = networks.exported(folder, kind), networks.shared(kind)
    image, padded = given(kind)
    assert len(artifact.blocks) == 5
    _, outputs = OnnxProbe(onnx.load(artifact.path), artifact.blocks).run(padded)
    expected = [block_output(model, image, block) for block in artifact.blocks]
    for found, wanted in zip(outputs, expected, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    assert len({array.tobytes() for array in expected}) == 5


def test_a_hook_does_not_stay(folder: Path) -> None:
    model = networks.shared("swinir-light")
    block_output(model, given("swinir-light")[0], "layers.0")
    assert not any(module._forward_hooks for module in model.modules())


def test_dictionaries_are_recorded_in_order() -> None:
    model, (image, padded) = networks.shared("semanir"), given("semanir")
    with record_dictionaries() as recorded, torch.no_grad():
        model(torch.from_numpy(image))
    windows = padded.shape[2] * padded.shape[3] // 16
    assert [tuple(words.shape) for words in recorded] == [(windows, 16, 1)] * 2
    assert all(set(np.bitwise_count(words.numpy()).ravel().tolist()) == {5} for words in recorded)
    assert not torch.equal(*recorded)
    with record_dictionaries() as recorded, torch.no_grad():
        networks.shared("swinir-light")(torch.from_numpy(given("swinir-light")[0]))
    assert recorded == []


def test_dictionaries_of_the_file_are_seen(semanir: OnnxArtifact, folder: Path) -> None:
    graph = onnx.load(semanir.path)
    names = dictionary_tensors(graph)
    assert len(names) == 2
    image, padded = given("semanir")
    with record_dictionaries() as recorded, torch.no_grad():
        networks.shared("semanir")(torch.from_numpy(image))
    _, found = OnnxProbe(graph, names).run(padded)
    for words, expected in zip(found, recorded, strict=True):
        assert np.array_equal(words, expected.numpy())
    assert dictionary_tensors(onnx.load(networks.exported(folder, "semanir", decomposed=True).path)) == []


def test_fed_dictionaries_replace_the_computed_ones(semanir: OnnxArtifact) -> None:
    graph = onnx.load(semanir.path)
    before = graph.SerializeToString()
    _, padded = given("semanir")
    names = dictionary_tensors(graph)
    own, computed = OnnxProbe(graph, names).run(padded)
    fed = OnnxProbe(graph, feed_dictionaries=True)
    same, _ = fed.run(padded, computed)
    np.testing.assert_allclose(same, own, atol=1e-6)
    alone = [np.broadcast_to((1 << np.arange(16, dtype=np.int32))[:, None], words.shape) for words in computed]
    other, _ = fed.run(padded, [np.ascontiguousarray(words) for words in alone])  # every token attends to itself
    assert np.abs(other - own).max() > 1e-3
    assert graph.SerializeToString() == before


def test_as_many_dictionaries_as_there_are(semanir: OnnxArtifact) -> None:
    fed = OnnxProbe(onnx.load(semanir.path), feed_dictionaries=True)
    with pytest.raises(ValueError, match="shorter"):
        fed.run(given("semanir")[1], [])
