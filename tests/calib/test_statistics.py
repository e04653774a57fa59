"""Statistics of layer inputs: resumable, and the same bit for bit."""

from __future__ import annotations

import copy
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

Measured = tuple[onnx.ModelProto, list[Layer]]


@pytest.fixture(scope="module")
def measured(folder: Path) -> Measured:
    graph = onnx.load(networks.exported(folder, "swinir-light").path)
    return graph, find_layers(graph)


def same(a: dict[str, Statistics], b: dict[str, Statistics]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name].counts, b[name].counts) and np.array_equal(a[name].channels, b[name].channels)
        for name in a
    )


def batches(count: int) -> list[np.ndarray]:
    return [networks.images(1, 3, 8 + 4 * (n % 2), 16, seed=n) for n in range(count)]


def test_they_are_those_of_the_tensors(measured: Measured) -> None:
    graph, layers = measured
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


def test_an_interrupted_run_goes_on(measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, layers = measured
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


def test_a_damaged_entry_is_measured_again(measured: Measured, tmp_path: Path) -> None:
    graph, layers = measured
    whole = collect(graph, layers, batches(2), Cache(tmp_path))
    first, second = (entry.content for entry in Cache(tmp_path).entries())
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    with pytest.warns(CacheWarning, match="damaged"):
        assert same(collect(graph, layers, batches(2), Cache(tmp_path)), whole)


def test_another_model_has_other_entries(measured: Measured, tmp_path: Path) -> None:
    graph, layers = measured
    collect(graph, layers, batches(1), Cache(tmp_path))
    other = copy.deepcopy(graph)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    collect(other, layers, batches(1), Cache(tmp_path))
    assert len(Cache(tmp_path).entries()) == 2


def test_progress_counts_images(measured: Measured) -> None:
    told: list[int] = []
    collect(*measured, batches(3), progress=told.append)
    assert told == [1, 2, 3]
