"""INT8 files under TensorRT-RTX: every quantised layer becomes an Int8 kernel, none silently float; nothing is run."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from agileir_export.calib import CalibrationOptions
from agileir_export.calib.layers import find_layers
from agileir_export.engines.audit.verdict import judge, product_nodes, quantised_nodes
from agileir_export.engines.profiles import Profile
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.models import load_model

from ..engines.rtx_builds import kernels_of_build, needs_rtx
from ..export import networks
from ..export.written import int8_file

pytestmark = needs_rtx


def assert_int8_kernels(source: OnnxArtifact, path: Path, rest: str) -> None:
    """Calibrates a file and reads the kernels of its engine back."""
    options = CalibrationOptions(
        crops=2, rest=rest, psnr_budget=50, min_parity=0, min_agreement=0, every_layer=False, equalise=False
    )
    artifact, report = int8_file(source, path, options=options)
    graph = onnx.load(artifact.path)
    quantised = quantised_nodes(graph)
    named = {layer.node: layer.name for layer in find_layers(onnx.load(source.path))}
    assert {named[node] for node in quantised} == {*report.recipe.int8}
    m = source.spec.pad_multiple
    profile = Profile((1, m, m), (1, 4 * m, 4 * m), (2, 6 * m, 8 * m))
    kernels = kernels_of_build(artifact.path, profile, gpus=("sm86", "sm89"))
    audit = judge(kernels, "int8", quantised, product_nodes(graph))
    assert audit.passed, audit.problems
    int8 = {
        origin for k in kernels if k.precision == "int8" and k.kind in ("gemm", "convolution") for origin in k.origin
    }
    text = " ".join(int8)
    assert all(node in text for node in quantised)
    others = {k.precision for k in kernels if k.kind in ("gemm", "convolution", "attention")} - {"int8"}
    assert rest in others
    assert rest == "float16" or others == {"float32"}
    assert not audit.unknown


@pytest.mark.parametrize("rest", ["float32", "float16"])
def test_a_small_file(rest: str, small: OnnxArtifact, tmp_path: Path) -> None:
    assert_int8_kernels(small, tmp_path / "int8.onnx", rest)


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["agileir", "semanir", "semanir-unet", "swinir-classical", "swinir-real"])
def test_every_family(kind: str, rest: str, folder: Path, tmp_path: Path) -> None:
    assert_int8_kernels(networks.exported(folder, kind), tmp_path / "int8.onnx", rest)


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["float32", "float16"])
@pytest.mark.parametrize("name", ["agileir_tiny_x2", "semanir_tiny_dn25"])
def test_packaged_models(name: str, rest: str, tmp_path: Path) -> None:
    source = export_onnx(load_model(name), tmp_path / "float.onnx", source={"model": name})
    assert_int8_kernels(source, tmp_path / "int8.onnx", rest)
