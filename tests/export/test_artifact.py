"""Reading back what an ONNX file says of itself, and refusing every file that is not ours."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from agileir_export.errors import OnnxFileError
from agileir_export.export.artifact import BLOCKS_KEY, PROVENANCE_KEY, SPEC_KEY, read_artifact
from agileir_export.models.spec import ModelSpec

from ..scripts import run_python

SPEC = ModelSpec("swinir", "swinir_light_x2", "super-resolution", 2, 3, 8, 8)


def small(weight: int = TensorProto.FLOAT, static: bool = False) -> onnx.ModelProto:
    """A graph of two nodes with our metadata."""
    dims = [1, 3, 16, 24] if static else ["batch", 3, "height", "width"]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, dims)
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Cast", ["input"], ["cast"], to=weight),
        helper.make_node("Conv", ["cast", "weight"], ["output"]),
    ]
    weights = helper.make_tensor("weight", weight, [3, 3, 1, 1], [0] * 9)
    model = helper.make_model(helper.make_graph(nodes, "small", [image], [output], [weights]))
    metadata = {
        SPEC_KEY: json.dumps(SPEC.to_json()),
        PROVENANCE_KEY: json.dumps({"torch": "2"}),
        BLOCKS_KEY: json.dumps(["layers.0", "layers.1"]),
    }
    helper.set_model_props(model, metadata)
    return model


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def damaged(path: Path, key: str, text: str | None) -> Path:
    """The small model with one metadata entry replaced, or removed."""
    model = small()
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {key: text}
    del model.metadata_props[:]
    helper.set_model_props(model, {name: value for name, value in metadata.items() if value is not None})
    return written(path, model)


# ---- what it reads ----


def test_a_file_of_ours(tmp_path: Path) -> None:
    path = written(tmp_path / "small.onnx", small())
    artifact = read_artifact(str(path))
    assert artifact.path == path
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (artifact.spec, artifact.provenance) == (SPEC, {"torch": "2"})
    assert artifact.blocks == ("layers.0", "layers.1")
    assert (artifact.nodes, artifact.operators, artifact.fixed_sizes, artifact.precision) == (2, {}, {}, "float32")


def test_fixed_sizes(tmp_path: Path) -> None:
    artifact = read_artifact(written(tmp_path / "static.onnx", small(static=True)))
    assert artifact.fixed_sizes == {"batch": 1, "height": 16, "width": 24}


@pytest.mark.parametrize(
    ("weight", "precision"),
    [(TensorProto.FLOAT16, "float16"), (TensorProto.BFLOAT16, "bfloat16"), (TensorProto.INT8, "int8")],
)
def test_precision(weight: int, precision: str, tmp_path: Path) -> None:
    assert read_artifact(written(tmp_path / "half.onnx", small(weight))).precision == precision


def test_quantised(tmp_path: Path) -> None:
    model = small()
    model.graph.node.append(helper.make_node("QuantizeLinear", ["input", "s"], ["q"]))
    assert read_artifact(written(tmp_path / "quantised.onnx", model)).precision == "int8"


def test_operators_are_counted(tmp_path: Path) -> None:
    model = small()
    for name in ("a", "b"):
        model.graph.node.append(helper.make_node("Ours", ["input"], [name], domain="agileir"))
    body = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("agileir", "Ours", ["x"], ["y"], [body], [helper.make_opsetid("", 20)]))
    artifact = read_artifact(written(tmp_path / "operators.onnx", model))
    assert (artifact.operators, artifact.nodes) == ({"Ours": 2}, 4)


def test_json(tmp_path: Path) -> None:
    path = written(tmp_path / "small.onnx", small())
    artifact = read_artifact(path)
    answer = json.loads(json.dumps(artifact.to_json()))
    names = {field.name for field in dataclasses.fields(artifact)}
    assert set(answer) == names - {"model", "data", "fixed_sizes"} | {"sha256", "profile"}
    assert (answer["path"], answer["blocks"]) == (str(path), ["layers.0", "layers.1"])
    assert answer["spec"] == dataclasses.asdict(SPEC)


def test_provenance_and_blocks_may_be_absent(tmp_path: Path) -> None:
    assert read_artifact(damaged(tmp_path / "a.onnx", PROVENANCE_KEY, None)).provenance == {}
    assert read_artifact(damaged(tmp_path / "b.onnx", BLOCKS_KEY, None)).blocks == ()


# ---- what it refuses ----


def refused(path: Path, what: str) -> OnnxFileError:
    with pytest.raises(OnnxFileError, match=what) as caught:
        read_artifact(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    assert (caught.value.code, caught.value.exit_code) == ("input.onnx", 2)
    return caught.value


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "missing.onnx", "does not exist")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize(
    "data", [b"", b"not an ONNX file at all", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(64), bytes(1000)]
)
def test_something_else(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    refused(path, "not an ONNX file")


def test_every_truncation(tmp_path: Path) -> None:
    """A file cut anywhere: protobuf may still read it, but then the metadata or the graph is not whole."""
    data = small().SerializeToString()
    path = tmp_path / "cut.onnx"
    whole = read_artifact(written(path, small()))
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            artifact = read_artifact(path)
        except OnnxFileError:
            continue
        same = [dataclasses.replace(each, data=b"", provenance={}, blocks=()) for each in (artifact, whole)]
        assert same[0] == same[1], f"cut at {length} of {len(data)} bytes"


def test_the_file_of_another_program(tmp_path: Path) -> None:
    error = refused(damaged(tmp_path / "foreign.onnx", SPEC_KEY, None), f"not one of ours.*{SPEC_KEY}")
    assert "agileir-export onnx" in error.fix


NO_JSON = ("", "{", '{"family": "swinir"', "nonsense")
NO_SPEC = ("[]", "3", "null", '"text"', "{}")
BROKEN = [(key, text) for key in (SPEC_KEY, PROVENANCE_KEY, BLOCKS_KEY) for text in NO_JSON]
BROKEN += [(SPEC_KEY, text) for text in NO_SPEC]
BROKEN += [(PROVENANCE_KEY, "[1]"), (BLOCKS_KEY, "3"), (BLOCKS_KEY, "[1, 2]")]


@pytest.mark.parametrize(("key", "text"), BROKEN)
def test_metadata_that_is_no_json_or_of_another_form(key: str, text: str, tmp_path: Path) -> None:
    error = refused(damaged(tmp_path / "damaged.onnx", key, text), "metadata cannot be understood")
    assert error.__cause__ is not None


def test_a_graph_without_an_input(tmp_path: Path) -> None:
    model = small()
    del model.graph.input[:]
    refused(written(tmp_path / "no-input.onnx", model), "no graph with an input")


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": "two"},
        {"scale": 0},
        {"channels": 1.5},
        {"pad_multiple": None},
        {"window_size": True},
        {"family": 3},
        {"img_range": 0},
        {"unknown": 1},
        {"top_k": -1},
    ],
    ids=str,
)
def test_a_spec_with_wrong_values(changes: dict[str, object], tmp_path: Path) -> None:
    text = json.dumps({**dataclasses.asdict(SPEC), **changes})
    error = refused(damaged(tmp_path / "damaged.onnx", SPEC_KEY, text), "metadata cannot be understood")
    assert next(iter(changes)) in error.what


def test_reading_loads_no_torch(tmp_path: Path) -> None:
    path = written(tmp_path / "small.onnx", small())
    program = "import sys; from agileir_export.export import read_artifact; read_artifact(sys.argv[1]);"
    program += "print('torch' in sys.modules)"
    answer = run_python("-c", program, str(path))
    assert answer.stdout.strip() == "False"


def test_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    """They are a part of the artifact, and their absence is told."""
    path = tmp_path / "a.onnx"
    model = small()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4096, dtype=np.float32), "beside"))
    onnx.save(model, path, save_as_external_data=True, location="a.data", size_threshold=0)
    before = read_artifact(path)
    assert len(before.data) > 4 * 4096 > path.stat().st_size
    data = bytearray((tmp_path / "a.data").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.data").write_bytes(data)
    assert read_artifact(path).sha256 != before.sha256, "changed weights are another file"
    (tmp_path / "a.data").unlink()
    refused(path, "the file of its weights")
