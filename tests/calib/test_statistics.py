"""Statistics of layer inputs: resumable, and the same bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from agileir_export.cache import Cache, CacheWarning
from agileir_export.calib.histogram import histogram
from agileir_export.calib.layers import Layer, find_layers
from agileir_export.calib.statistics import Statistics, collect
from agileir_export.parity.probe import OnnxProbe

from ..export import networks


@pytest.fixture(scope="module")
def graph_and_layers(folder: Path) -> tuple[onnx.ModelProto, list[Layer]]:
    graph = onnx.load(networks.exported(folder, "swinir-light").path)
    return graph, find_layers(graph)


def same(a: dict[str, Statistics], b: dict[str, Statistics]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name].counts, b[name].counts) and np.array_equal(a[name].channels, b[name].channels)
        for name in a
    )


def batches(count: int) -> list[np.ndarray]:
    return [networks.images(1, 3, 8 + 4 * (n % 2), 16, seed=n) for n in range(count)]


def test_they_are_those_of_the_tensors(graph_and_layers: tuple[onnx.ModelProto, list[Layer]]) -> None:
    graph, layers = graph_and_layers
    found = collect(graph, layers, batches(2))
    names = sorted(found)
    values = [OnnxProbe(graph, names).run(image)[1] for image in batches(2)]
    axes = {layer.input: layer.input_axis for layer in layers}
    for position, name in enumerate(names):
        tensors = [value[position] for value in values]
        assert np.array_equal(found[name].counts, sum(histogram(tensor) for tensor in tensors))
        flat = [np.moveaxis(tensor, axes[name], -1).reshape(-1, found[name].channels.size) for tensor in tensors]
        assert np.array_equal(found[name].channels, np.abs(np.concatenate(flat)).max(0))
        assert found[name].largest == max(float(np.abs(tensor).max()) for tensor in tensors)


def test_an_interrupted_run_goes_on(
    graph_and_layers: tuple[onnx.ModelProto, list[Layer]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, layers = graph_and_layers
    whole = collect(graph, layers, batches(4))

    def interrupted() -> Iterator[np.ndarray]:
        yield from batches(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(graph, layers, interrupted(), Cache(tmp_path))
    assert len(Cache(tmp_path).entries()) == 3
    runs = []
    original = OnnxProbe.run
    monkeypatch.setattr(OnnxProbe, "run", lambda self, image: runs.append(1) or original(self, image))
    assert same(collect(graph, layers, batches(4), Cache(tmp_path)), whole)
    assert len(runs) == 1
    assert same(collect(graph, layers, batches(4), Cache(tmp_path)), whole)
    assert len(runs) == 1


def test_a_damaged_entry_is_measured_again(
    graph_and_layers: tuple[onnx.ModelProto, list[Layer]], tmp_path: Path
) -> None:
    graph, layers = graph_and_layers
    whole = collect(graph, layers, batches(2), Cache(tmp_path))
    first, second = (entry.content for entry in Cache(tmp_path).entries())
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    with pytest.warns(CacheWarning, match="damaged"):
        assert same(collect(graph, layers, batches(2), Cache(tmp_path)), whole)


def test_another_model_has_other_entries(graph_and_layers: tuple[onnx.ModelProto, list[Layer]], tmp_path: Path) -> None:
    graph, layers = graph_and_layers
    collect(graph, layers, batches(1), Cache(tmp_path))
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    collect(other, layers, batches(1), Cache(tmp_path))
    assert len(Cache(tmp_path).entries()) == 2


def test_progress_counts_images(graph_and_layers: tuple[onnx.ModelProto, list[Layer]]) -> None:
    told: list[int] = []
    collect(*graph_and_layers, batches(3), progress=told.append)
    assert told == [1, 2, 3]
