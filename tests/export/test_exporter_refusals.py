"""What the exporter refuses, notices and leaves behind."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.errors import InputError, InternalError, OutputError
from agileir_export.export import export_onnx, exporter
from agileir_export.models import Restorer, build_preset, randomise

from . import networks


@pytest.fixture
def traced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Restorer:
    """A network whose trace is kept, for tests of what comes after it."""
    networks.exported(folder, "swinir-real")
    real, kept = exporter._trace, _TRACES

    def trace(model: Restorer, opset: int, size: tuple[int, int] | None) -> onnx.ModelProto:
        if not kept:
            kept.append(real(model, opset, size))
        return copy.deepcopy(kept[0])

    monkeypatch.setattr(exporter, "_trace", trace)
    return networks.shared("swinir-real")


_TRACES: list[onnx.ModelProto] = []


def test_a_file_is_replaced(traced: Restorer, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"something else")
    artifact = export_onnx(traced, path)
    assert path.read_bytes() == networks.exported(folder, "swinir-real").path.read_bytes()
    assert artifact.path == path
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("place", ["missing/model.onnx", "file/model.onnx", "folder"])
def test_where_nothing_can_be_written(place: str, traced: Restorer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        export_onnx(traced, tmp_path / place)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(traced: Restorer, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError):
        export_onnx(traced, locked / "model.onnx")
    assert list(locked.iterdir()) == []


def test_a_failing_disk_leaves_the_old_file(traced: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        export_onnx(traced, path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("opset", [17, 24, 0])
def test_opset_out_of_range(opset: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"18..23, got {opset}"):
        export_onnx(networks.shared("swinir-real"), tmp_path / "model.onnx", opset=opset)


@pytest.mark.parametrize("static", [(0, 8), (8, 0), (-1, 4)])
def test_static_size_out_of_range(static: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{static[0]}x{static[1]}"):
        export_onnx(networks.shared("swinir-real"), tmp_path / "model.onnx", static=static)


@pytest.mark.parametrize(("axis", "name"), [(0, "batch"), (2, "height"), (3, "width")])
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_frozen_dimension_is_noticed(
    side: str, axis: int, name: str, traced: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace that lost one free dimension, as the exporter does silently at some sizes."""
    trace = exporter._trace

    def frozen(*arguments: Any) -> onnx.ModelProto:
        proto = trace(*arguments)
        dims = getattr(proto.graph, side)[0].type.tensor_type.shape.dim
        dims[axis].dim_value = 8
        return proto

    monkeypatch.setattr(exporter, "_trace", frozen)
    with pytest.raises(InternalError, match=f"{side}.*frozen in {name}"):
        export_onnx(traced, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("axis", [0, 2, 3])
@pytest.mark.parametrize("side", ["input", "output"])
def test_the_last_check_notices_a_frozen_dimension(side: str, axis: int, folder: Path) -> None:
    graph = onnx.load(networks.exported(folder, "swinir-real").path)
    exporter._check(graph, None)
    dims = getattr(graph.graph, side)[0].type.tensor_type.shape.dim
    dims[axis].dim_value = 8
    with pytest.raises(InternalError, match=f"froze dimension {axis} of {side}"):
        exporter._check(graph, None)


def test_the_last_check_notices_an_invalid_graph(folder: Path) -> None:
    graph = onnx.load(networks.exported(folder, "swinir-real").path)
    graph.graph.node[0].input[0] = "nothing"
    with pytest.raises(InternalError, match="not valid ONNX"):
        exporter._check(graph, None)


def test_a_block_without_a_trace_is_noticed(folder: Path) -> None:
    """Block names come from the exporter's scopes: without them nothing must be guessed."""
    exported = onnx.load(networks.exported(folder, "swinir-real").path)  # holds no scopes any more
    with pytest.raises(InternalError, match=r"no trace of model\.layers\.0"):
        exporter._block_outputs(exported, networks.shared("swinir-real"))


def test_presets_are_exported_by_name(tmp_path: Path) -> None:
    """A preset with its own name in the spec, and top_k changed."""
    changes = {"embed_dim": 12, "num_heads": 2, "depths": (1,), "window_size": 4, "num_feat": 8}
    model = build_preset("semanir_s_x2", top_k=3, **changes)
    randomise(model, 1)
    artifact = export_onnx(model, tmp_path / "model.onnx")
    assert (artifact.spec.name, artifact.spec.top_k) == ("semanir_s_x2", 3)
    attributes = [a for n in onnx.load(artifact.path).graph.node for a in n.attribute if a.name == "top_k"]
    assert [attribute.i for attribute in attributes] == [3]
