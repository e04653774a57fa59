"""Small ONNX graphs, requests to build them, and a stand-in to build with."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.engines.building import engine as building
from agileir_export.engines.building.request import BuildRequest
from agileir_export.engines.cuda_driver import Device, Gpu
from agileir_export.engines.doctor import TargetVerdict
from agileir_export.engines.profiles import Profile
from agileir_export.engines.targets import Target
from agileir_export.export.artifact import SPEC_KEY, OnnxArtifact, read_artifact
from agileir_export.models.spec import ModelSpec

from . import fake_builder

SIZES = Profile((1, 4, 4), (1, 8, 8), (1, 16, 16))

ONE = "float[1,3,H,W] input"
FREE = "float[N,3,H,W] input"


def save(path: Path, body: str, given: str = FREE, made: str = "float[N,3,H,W] output", opset: int = 22) -> Path:
    """Writes the graph that ONNX text describes."""
    text = f'<ir_version: 10, opset_import: ["": {opset}, "other": 1]> network ({given}) => ({made}) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def product(path: Path, kind: str = "FLOAT") -> Path:
    """A matrix product, ``the_product``, of the values of pictures ``[N, 3, H, W]``, 16 a row, in a type."""
    code = onnx.TensorProto.DataType.Value(kind)
    weights = onnx.helper.make_tensor("weights", code, [16, 16], [(7 * i % 31) / 16 for i in range(256)])
    nodes = [
        onnx.helper.make_node("Cast", ["input"], ["typed"], to=code),
        onnx.helper.make_node("Reshape", ["typed", "rows"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weights"], ["mixed"], name="the_product"),
        onnx.helper.make_node("Cast", ["mixed"], ["output"], to=onnx.TensorProto.FLOAT),
    ]
    rows = onnx.helper.make_tensor("rows", onnx.TensorProto.INT64, [2], [-1, 16])
    images = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    result = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["P", 16])
    graph = onnx.helper.make_graph(nodes, "network", [images], [result], [weights, rows])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)], ir_version=10), path)
    return path


def described(path: Path, multiple: int = 4) -> OnnxArtifact:
    """A graph as a file of this package: with a spec in its metadata."""
    model = onnx.load(path)
    spec = ModelSpec("swinir", "small", "super-resolution", 1, 3, 4, multiple)
    onnx.helper.set_model_props(model, {SPEC_KEY: json.dumps(spec.to_json())})
    onnx.save(model, path)
    return read_artifact(path)


def request(path: Path, **changes: Any) -> BuildRequest:
    """A float32 engine for sm86 with TensorRT-RTX."""
    given: dict[str, Any] = {
        "onnx": path,
        "sha256": "0" * 64,
        "network": "small",
        "precision": "float32",
        "target": "rtx",
        "profiles": (SIZES,),
        "gpus": ("sm86",),
    }
    return BuildRequest(**{**given, **changes})


def offer_tensorrt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this a machine with a GPU and the stand-in of the builder as TensorRT, which lies in `folder`."""
    folder.mkdir()
    shutil.copy(fake_builder.__file__, folder / "tensorrt.py")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    gpu = Gpu((13, 0), (Device(0, "Test GPU", (8, 9)),))
    monkeypatch.setattr(building, "probe_gpu", lambda: gpu)
    monkeypatch.setattr(Target, "verdict", lambda self, plugins=False: TargetVerdict(self.check, works=True))
