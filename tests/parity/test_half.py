"""The ladder on half-precision files: sound ones pass their floors, overflow and mistakes are found and named."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.export.precision import HALF_PRECISIONS
from agileir_export.models import Restorer, build_preset, load_model, randomise
from agileir_export.parity import ParityImage, load_images, verify
from agileir_export.parity.bisection import block_psnr
from agileir_export.parity.probe import OnnxProbe, block_output

from ..export import networks
from ..export.written import half_file
from .tampering import set_attribute, tamper, without_task

FLOORS = {"float16": 60, "bfloat16": 45}
OWN_FLOORS = {"float16": 50, "bfloat16": 45}
PACKAGED = ("agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_x2", "semanir_tiny_dn25")


def pictures(model: Restorer) -> list[ParityImage]:
    return load_images(model.spec, sizes=[(13, 18), (16, 24)])[:2]


def half_of(artifact: OnnxArtifact, folder: Path, precision: str) -> OnnxArtifact:
    """The file in half precision, without a task rung."""
    return without_task(half_file(artifact, folder / f"{precision}.onnx", precision))


@pytest.mark.parametrize("precision", HALF_PRECISIONS)
@pytest.mark.parametrize("kind", ["agileir", "swinir-light", "semanir"])
def test_a_half_file_passes_its_rungs(kind: str, precision: str, folder: Path, tmp_path: Path) -> None:
    model = networks.shared(kind)
    half = half_of(networks.exported(folder, kind), tmp_path, precision)
    report = verify(model, half, pictures(model))
    compared = {rung.name.removeprefix(f"ONNX {precision} = PyTorch"): rung for rung in report.rungs[1:]}
    if kind != "semanir":
        assert set(compared) == {""}
        assert compared[""].floor == FLOORS[precision]
        assert report.passed
        return
    given, own = compared[", same dictionary"], compared[", own dictionary"]
    assert (given.floor, own.floor) == (FLOORS[precision], OWN_FLOORS[precision])
    assert own.agreement_floor == 0.99
    assert given.passed
    agreement = [measure.agreement for measure in own.measures]
    assert all(share is not None and share > 0.95 for share in agreement), "untrained features are nearly alike"


@pytest.mark.parametrize("precision", HALF_PRECISIONS)
def test_every_block_is_the_half_precision_form_of_the_models(precision: str, folder: Path, tmp_path: Path) -> None:
    """Block outputs of a half file are float32 arrays of half-precision numbers, near PyTorch's."""
    model, source = networks.shared("agileir"), networks.exported(folder, "agileir")
    half = half_file(source, tmp_path / "half.onnx", precision)
    images = networks.images(1, 3, 8, 12)
    _, outputs = OnnxProbe(onnx.load(half.path), half.blocks).run(images)
    dtype = np.dtype(np.float16) if precision == "float16" else np.dtype(ml_dtypes.bfloat16)
    for block, found in zip(half.blocks, outputs, strict=True):
        assert found.dtype == np.float32
        assert np.array_equal(found.astype(dtype).astype(np.float32), found)
        assert block_psnr(block_output(model, images, block), found) > FLOORS[precision] - 10


def test_overflow_is_found_and_its_block_is_named(tmp_path: Path) -> None:
    """Two blocks add 6e4 each to the stream, so that the second one passes 65504; bfloat16 does not mind."""
    model = networks.build("swinir-light")
    for number in range(2):
        model.get_parameter(f"layers.0.residual_group.blocks.{number}.mlp.fc2.bias").data += 6e4
    source = export_onnx(model, tmp_path / "large.onnx")
    report = verify(model, half_of(source, tmp_path, "float16"), pictures(model))
    rung = report.rungs[-1]
    assert not rung.passed
    assert all(measure.nonfinite > 0 and not math.isfinite(measure.psnr) for measure in rung.measures)
    assert rung.broken_block == "layers.0.residual_group.blocks.1"
    runner = OnnxRuntimeRunner(half_of(source, tmp_path, "bfloat16"))
    assert np.isfinite(runner.run(networks.images(1, 3, 8, 8))).all()


def test_mistakes_are_found_in_half_files(folder: Path, tmp_path: Path) -> None:
    model, source = networks.shared("swinir-light"), networks.exported(folder, "swinir-light")
    weight = "layers.1.residual_group.blocks.0.mlp.fc1.weight^T"
    wrong = tamper(source, tmp_path / "wrong.onnx", weight, np.negative)
    report = verify(model, half_of(wrong, tmp_path, "bfloat16"), pictures(model))
    assert not report.passed
    assert report.rungs[-1].broken_block == "layers.1.residual_group.blocks.0"
    shifted = set_attribute(source, tmp_path / "shifted.onnx", "ShiftedWindowAttention", 0, "shift_size", 1)
    assert not verify(model, half_of(shifted, tmp_path, "float16"), pictures(model)).passed


def test_a_dictionary_of_other_keys_is_found_in_half_files(folder: Path, tmp_path: Path) -> None:
    model, source = networks.shared("semanir"), networks.exported(folder, "semanir")
    other = set_attribute(source, tmp_path / "other.onnx", "KeySemanticDictionary", 1, "top_k", 4)
    report = verify(model, half_of(other, tmp_path, "float16"), pictures(model))
    (own,) = [rung for rung in report.rungs if rung.name.endswith("own dictionary")]
    assert not own.passed
    assert min(measure.agreement for measure in own.measures if measure.agreement is not None) < 0.96


# ---- packaged models and a full preset ----


@pytest.mark.slow
@pytest.mark.parametrize("precision", HALF_PRECISIONS)
@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_models_pass_in_half(name: str, precision: str, tmp_path: Path) -> None:
    model = load_model(name)
    source = export_onnx(model, tmp_path / "float32.onnx")
    half = half_file(source, tmp_path / "half.onnx", precision)
    report = verify(model, half)
    assert report.passed, report.to_json()
    assert report.rungs[-1].name == "restores ground truth as PyTorch does"


@pytest.mark.slow
@pytest.mark.parametrize("precision", HALF_PRECISIONS)
def test_a_full_preset_passes_in_half(precision: str, tmp_path: Path) -> None:
    model = build_preset("swinir_light_x2")
    randomise(model, 0)
    source = export_onnx(model, tmp_path / "float32.onnx", source={"random_weights": 0})
    report = verify(model, half_file(source, tmp_path / "half.onnx", precision))
    assert report.passed, report.to_json()
