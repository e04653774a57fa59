"""Weights in a file beside the ONNX file are part of it: in its identity, and in what a bundle holds."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from agileir_export.bundle import write_bundle
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import OnnxFileError
from agileir_export.export import OnnxArtifact, read_artifact

from ..export import networks


def external(artifact: OnnxArtifact, folder: Path) -> Path:
    """A copy whose weights lie beside it."""
    folder.mkdir()
    model = onnx.ModelProto()
    model.CopyFrom(artifact.model)
    onnx.save(model, folder / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=0)
    return folder / "a.onnx"


def test_a_bundle_needs_nothing_beside_it(swinir: OnnxArtifact, tmp_path: Path) -> None:
    path = external(swinir, tmp_path / "in")
    bundle = write_bundle(tmp_path / "bundle", read_artifact(path))
    for file in path.parent.iterdir():
        file.unlink()
    images = networks.images(1, 3, 8, 12)
    expected = OnnxRuntimeRunner(swinir).run(images)
    for name in bundle.files:
        if name.endswith(".onnx"):
            assert (OnnxRuntimeRunner(tmp_path / "bundle" / name).run(images) == expected).all()


def test_other_weights_are_another_file(swinir: OnnxArtifact, tmp_path: Path) -> None:
    path = external(swinir, tmp_path / "in")
    before = read_artifact(path).sha256
    data = bytearray((path.parent / "a.data").read_bytes())
    data[-1] ^= 1
    (path.parent / "a.data").write_bytes(data)
    assert read_artifact(path).sha256 != before
    (path.parent / "a.data").unlink()
    with pytest.raises(OnnxFileError, match="the file of its weights beside it"):
        read_artifact(path)
