"""What the steps of the road give, written to files: for tests that want to look at one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agileir_export.calib import CalibrationReport, calibrate
from agileir_export.calib.layers import find_layers
from agileir_export.calib.quantise import insert_qdq
from agileir_export.calib.statistics import collect
from agileir_export.export import OnnxArtifact
from agileir_export.export.artifact import artifact_of
from agileir_export.export.precision import to_precision
from agileir_export.export.rescale import RescaleReport
from agileir_export.parity.rescaling import rescale_if_needed

from . import networks


def half_file(source: OnnxArtifact, path: Path, precision: str, **options: Any) -> OnnxArtifact:
    """`to_precision`, written."""
    return to_precision(source, precision, **options).write(path)


def rescaled_file(source: OnnxArtifact, path: Path, *images: Any) -> tuple[OnnxArtifact, RescaleReport]:
    """`rescale_if_needed`, written where it changed something."""
    artifact, report = rescale_if_needed(source, *images)
    return (artifact.write(path) if report.changed else artifact), report


def int8_file(
    source: OnnxArtifact, path: Path, images: Sequence[str | Path] = (), **options: Any
) -> tuple[OnnxArtifact, CalibrationReport]:
    """`calibrate`, written."""
    artifact, report = calibrate(source, images, **options)
    return artifact.write(path), report


def quantised(source: OnnxArtifact) -> OnnxArtifact:
    """The file, whose layers, but for the ends, multiply int8 by int8."""
    layers = find_layers(source.model)
    statistics = collect(source.model, layers, [networks.images(1, source.spec.channels, 16, 24)])
    thresholds = {layer.name: statistics[layer.input].largest for layer in layers}
    chosen = [layer.name for layer in layers if not layer.end]
    artifact = artifact_of(insert_qdq(source.model, layers, thresholds, chosen))
    assert artifact.precision == "int8"
    return artifact
