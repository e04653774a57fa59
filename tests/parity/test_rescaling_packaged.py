"""Trained weights whose stream is as large as published models' are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agileir_export import load_model
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.models import Restorer
from agileir_export.parity import ParityImage, ParityReport, load_images, verify
from agileir_export.parity.ladder import FLOORS

from ..export.blown_up import ENOUGH, blow_up, louder_stream, magnitudes
from ..export.written import half_file, rescaled_file

pytestmark = pytest.mark.slow

FLOAT16_MAX = 65504.0
PACKAGED = ("agileir_tiny_x2", "agileir_tiny_x4", "semanir_tiny_x2", "semanir_tiny_dn25")


def pictures(model: Restorer) -> list[ParityImage]:
    return load_images(model.spec, sizes=[(48, 80), (64, 64)])[:2]


def in_float16(model: Restorer, artifact: OnnxArtifact, images: list[ParityImage], folder: Path) -> ParityReport:
    half = half_file(artifact, folder / f"{artifact.path.stem}.fp16.onnx", "float16")
    return verify(model, half, images)


def check(model: Restorer, images: list[ParityImage], folder: Path, amax: float, **source: int) -> None:
    """Plain float16 has NaN or infinities; after the rescale every rung holds, and float32 has the same bits."""
    artifact = export_onnx(model, folder / "source.onnx", source=source)
    rescaled, report = rescaled_file(artifact, folder / "rescaled.onnx", images)
    assert report.bit_identical is True and max(body.amax for body in report.bodies) > amax
    plain = in_float16(model, artifact, images, folder)
    rungs = [rung for rung in plain.rungs if rung.name.startswith("ONNX float16")]
    assert rungs and all(measure.nonfinite for rung in rungs for measure in rung.measures)
    mended = in_float16(model, rescaled, images, folder)
    assert mended.passed
    judged = [rung for rung in mended.rungs if rung.name.startswith("ONNX float16")][-1]
    assert judged.worst >= FLOORS["float16"] == 60


@pytest.mark.parametrize("name", PACKAGED)
def test_a_stream_that_grows(name: str, tmp_path: Path) -> None:
    model = load_model(name)
    images = pictures(model)
    crops = torch.from_numpy(np.stack([image.pixels[:, :48, :64] for image in images]))
    check(blow_up(model, crops), images, tmp_path, ENOUGH, random_weights=0)  # it restores nothing: no task rung


def test_as_reported_for_swinir(tmp_path: Path) -> None:
    """SwinIR issue #103: the standard deviation grows from stage to stage, after the last it is past float16's range.

    The packaged weights grow so by themselves, from 1 to 200 in four stages; scaled as a whole, they reach what was
    reported and restore the same pictures, which the ladder's task rung looks at.
    """
    model = load_model("agileir_tiny_x2")
    images = pictures(model)
    crops = torch.from_numpy(np.stack([image.pixels[:, :48, :64] for image in images]))
    deviations = [magnitudes(model, crops)[f"layers.{stage}"][1] for stage in range(4)]
    assert deviations == sorted(deviations)
    louder = louder_stream(model, 1.05 * FLOAT16_MAX / deviations[-1])
    assert magnitudes(louder, crops)["layers.3"][1] > FLOAT16_MAX
    check(louder, images, tmp_path, ENOUGH)
