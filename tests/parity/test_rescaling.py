"""Streams that outgrow float16: NaN without the rescale, as good as ever with it, and the same bits in float32."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import InputError, ParityMissed, Unsupported
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.export.rescale import TARGET
from agileir_export.parity import ParityImage, nonfinite, psnr, rescaling, verify
from agileir_export.parity.probe import OnnxProbe, dictionary_tensors
from agileir_export.parity.ranges import measure_ranges, padded

from ..export import networks
from ..export.blown_up import ENOUGH, blow_up, blow_up_file
from ..export.written import half_file, rescaled_file
from .noise import pictures
from .tampering import tamper

FLOOR = 60.0
"""dB that a file in float16 must hold."""


def each_or_slow(quick: Iterable[str]) -> list[Any]:
    """All networks; those not named are marked slow."""
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in networks.EXPORTED]


@pytest.fixture
def blown_up(folder: Path) -> Any:
    """Makes and keeps blown-up files, by kind and export options."""

    def make(kind: str, **options: Any) -> tuple[OnnxArtifact, list[ParityImage]]:
        sizes = [(16, 16)] if options.get("static") else [(17, 23), (24, 16)]
        images = pictures(networks.shared(kind).spec, *sizes)
        artifact = networks.exported(folder, kind, **options)
        path = artifact.path.with_suffix(".blown-up.onnx")
        return blow_up_file(artifact, path, images[0]), images

    return make


def restored(artifact: OnnxArtifact, images: list[ParityImage], keys: list[list[Any]]) -> list[Any]:
    """What a file makes of pictures with given dictionaries."""
    probe = OnnxProbe(onnx.load(artifact.path), feed_dictionaries=True)
    return [probe.run(padded(artifact, image), given)[0] for image, given in zip(images, keys, strict=True)]


def restored_by_own_keys(artifact: OnnxArtifact, images: list[ParityImage]) -> tuple[list[Any], list[list[Any]]]:
    """What a file makes of pictures, and the dictionaries it chooses."""
    model = onnx.load(artifact.path)
    probe = OnnxProbe(model, dictionary_tensors(model))
    found = [probe.run(padded(artifact, image)) for image in images]
    return [image for image, _ in found], [dictionaries for _, dictionaries in found]


@pytest.mark.parametrize("kind", each_or_slow(("agileir", "swinir-light")))
def test_every_family_survives_float16(kind: str, blown_up: Any, tmp_path: Path) -> None:
    source, images = blown_up(kind)
    rescaled, report = rescaled_file(source, tmp_path / "rescaled.onnx", images)
    assert report.changed and report.bit_identical is True
    assert report.images == tuple(image.name for image in images)
    assert max(body.amax for body in report.bodies) > ENOUGH
    assert rescaled.rescale and set(rescaled.rescale) <= set(rescaled.blocks)
    others = pictures(networks.shared(kind).spec, (17, 23), (24, 16), (9, 31))  # one more than was measured
    truths, keys = restored_by_own_keys(source, others)
    again, same_keys = restored_by_own_keys(rescaled, others)
    assert np.array_equal(np.concatenate(truths, None), np.concatenate(again, None))
    assert all(np.array_equal(*pair) for each in zip(keys, same_keys, strict=True) for pair in zip(*each, strict=True))
    ranges = measure_ranges(rescaled, onnx.load(rescaled.path), images)
    assert max(ranges.values()) <= TARGET
    plain = half_file(source, tmp_path / "plain.onnx", "float16")
    half = half_file(rescaled, tmp_path / "half.onnx", "float16")
    assert half.rescale == rescaled.rescale
    assert all(nonfinite(image) > 0 for image in restored(plain, others, keys))
    for truth, found in zip(truths, restored(half, others, keys), strict=True):
        assert nonfinite(truth) == 0
        assert psnr(truth, found) >= FLOOR


@pytest.mark.parametrize("options", [{"opset": 18, "decomposed": True}, {"static": (16, 16)}])
@pytest.mark.parametrize("kind", [pytest.param("agileir", marks=pytest.mark.slow), "swinir-light"])
def test_every_form_of_the_file(kind: str, options: dict[str, Any], blown_up: Any, tmp_path: Path) -> None:
    source, images = blown_up(kind, **options)
    rescaled, report = rescaled_file(source, tmp_path / "rescaled.onnx", images)
    assert report.changed and report.bit_identical is True
    half = half_file(rescaled, tmp_path / "half.onnx", "float16")
    pixels = images[0].pixels[None]
    assert psnr(OnnxRuntimeRunner(source).run(pixels), OnnxRuntimeRunner(half).run(pixels)) >= FLOOR


@pytest.mark.parametrize("kind", each_or_slow(("swinir-light", "semanir-unet")))
def test_an_untouched_file_stays_as_it_is(kind: str, folder: Path, tmp_path: Path) -> None:
    artifact = networks.exported(folder, kind)
    same, report = rescaled_file(artifact, tmp_path / "rescaled.onnx", pictures(networks.shared(kind).spec, (17, 23)))
    assert same is artifact and not report.changed
    assert all(body.k == 0 for body in report.bodies)
    assert {block for body in report.bodies for block in body.blocks} == set(artifact.blocks)
    assert report.bit_identical is None
    assert not list(tmp_path.iterdir())


def test_the_report_is_json(blown_up: Any, tmp_path: Path) -> None:
    source, images = blown_up("swinir-light")
    rescaled, report = rescaled_file(source, tmp_path / "rescaled.onnx", images)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    half = half_file(rescaled, tmp_path / "half.onnx", "float16")
    assert half.rescale_report == rescaled.rescale_report == document  # the proof stays with the file
    assert source.rescale_report == {}
    assert document["changed"] is True and document["bit_identical"] is True
    (body,) = document["bodies"]
    assert (
        body["k"] == report.bodies[0].k > 0
        and body["amax"] == report.bodies[0].amax
        and body["blocks"][0] == body["name"]
    )


def test_half_files_are_refused(folder: Path, tmp_path: Path) -> None:
    half = half_file(networks.exported(folder, "swinir-light"), tmp_path / "half.onnx", "float16")
    with pytest.raises(Unsupported, match="float16: only float32 files"):
        rescaled_file(half, tmp_path / "rescaled.onnx")


def test_no_picture(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture"):
        rescaled_file(networks.exported(folder, "swinir-light"), tmp_path / "rescaled.onnx", [])


def test_other_bits_are_an_error(blown_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, images = blown_up("swinir-light")
    exact = rescaling.rescale

    def sloppy(model: onnx.ModelProto, ranges: Any) -> Any:
        changed, report = exact(model, ranges)
        (bias,) = [tensor for tensor in changed.graph.initializer if tensor.name == "layers.0.conv.bias"]
        values = onnx.numpy_helper.to_array(bias) * np.float32(1.001)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return changed, report

    monkeypatch.setattr(rescaling, "rescale", sloppy)
    with pytest.raises(ParityMissed, match="same float32 bits"):
        rescaled_file(source, tmp_path / "rescaled.onnx", images)
    assert not list(tmp_path.iterdir())


def test_bisection_undoes_the_scale(tmp_path: Path) -> None:
    kind = "swinir-light"
    images = pictures(networks.shared(kind).spec, (17, 23), (24, 16))
    model = blow_up(networks.shared(kind), torch.from_numpy(images[0].pixels[None]))
    artifact = export_onnx(model, tmp_path / "source.onnx", source={"random_weights": 0})
    rescaled, report = rescaled_file(artifact, tmp_path / "rescaled.onnx", images)
    assert report.changed
    assert verify(model, rescaled, images).passed
    broken = tamper(rescaled, tmp_path / "broken.onnx", "layers.0.residual_group.blocks.1.mlp.fc2.bias")
    (rung,) = [rung for rung in verify(model, broken, images).rungs if not rung.passed]
    assert rung.broken_block == "layers.0.residual_group.blocks.1"
    plain = half_file(artifact, tmp_path / "plain.onnx", "float16")
    (rung,) = [rung for rung in verify(model, plain, images).rungs if not rung.passed]
    assert rung.broken_block is not None and rung.broken_block.startswith("layers.1")  # where the stream overflows
    assert verify(model, half_file(rescaled, tmp_path / "half.onnx", "float16"), images).passed
