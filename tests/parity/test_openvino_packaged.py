"""The floors of the ladder under OpenVINO: every packaged model, float32 and INT8, at two sizes that nothing traced."""

from __future__ import annotations

import importlib.util

import pytest

from agileir_export.calib import CalibrationOptions, calibrate
from agileir_export.engines import OpenVinoRunner
from agileir_export.export import export_onnx
from agileir_export.models import list_models, load_model
from agileir_export.parity import load_images, verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"),
]
PACKAGED = [entry.name for entry in list_models() if entry.packaged]
SIZES = ((45, 70), (83, 61))
RUNG, TASK = "openvino {} = PyTorch", "restores ground truth as PyTorch does, under openvino"


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_model_holds(name: str, precision: str) -> None:
    model = load_model(name)
    artifact = export_onnx(model)
    if precision == "int8":
        artifact, _ = calibrate(artifact, options=CalibrationOptions(crops=8, held_out=1, every_layer=False))
    images = load_images(model.spec, sizes=SIZES)
    report = verify(model, artifact, images, also=[OpenVinoRunner(artifact)])
    rungs = {rung.name: rung for rung in report.rungs}
    assert rungs[RUNG.format(precision)].passed, rungs[RUNG.format(precision)]
    assert {(each.height, each.width) for each in rungs[RUNG.format(precision)].measures} == {*SIZES}
    assert rungs[TASK].passed, rungs[TASK]
