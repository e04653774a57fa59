"""What half precision costs each block: the figures are those of the tensors, and each block answers for itself."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from agileir_export.errors import InputError, Unsupported
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.parity.bisection import AFTER
from agileir_export.parity.quality import BlockQuality, block_quality
from agileir_export.parity.rounding import BlockWatch
from agileir_export.parity.tables import QUALITY_COLUMNS, quality_rows

from ..export import networks
from ..export.blown_up import louder_stream
from ..export.written import half_file, rescaled_file
from .noise import pictures
from .tampering import tamper

BLOCK = "layers.{}.residual_group.blocks.{}"
IN_ORDER = [BLOCK.format(0, 0), BLOCK.format(0, 1), "layers.0", BLOCK.format(1, 0), "layers.1", AFTER]


@pytest.fixture
def half(folder: Path, swinir: OnnxArtifact) -> OnnxArtifact:
    return half_file(swinir, folder / "swinir-light.fp16.onnx", "float16")


def by_name(report: Any) -> dict[str, BlockQuality]:
    return {entry.block: entry for entry in report.blocks}


# ---- counting ----


def test_rounding_is_counted_as_numpy_does() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 20]> g (float[a, b, c, d] image) => (float[a, b, c, d] y) {
        x = Cast <to = 10> (image)
        block = Mul (x, x)
        z = Sqrt (block)
        y = Cast <to = 1> (z)
        }"""
    )
    values = np.array([3.0, -300.0, 250.0, 0.0, 1e-4, -1e-5, 2e5, 1e-9], np.float32).reshape(1, 1, 2, 4)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    squares = rounded.astype(np.float32) ** 2
    watch = BlockWatch(model, ["block"], alone=True, dictionaries=False)
    outputs, found = watch.run(values, [], {"block": np.ones_like(values)})
    own = found["block"]
    finite = np.isfinite(squares)
    assert own.amax == 200000 and own.values == 16  # of the input, rounded before the block's product
    inputs = (np.isinf(rounded).sum(), np.count_nonzero((values != 0) & (rounded == 0)))
    with np.errstate(over="ignore"):
        products = squares.astype(np.float16)
    assert own.overflows == inputs[0] + (finite & np.isinf(products)).sum() == 2
    assert own.underflows == inputs[1] + np.count_nonzero((squares != 0) & (products == 0)) == 3
    np.testing.assert_array_equal(outputs["block"], products.astype(np.float32))
    np.testing.assert_array_equal(outputs[AFTER], np.ones_like(values))  # what follows was given ones
    assert (found[AFTER].amax, found[AFTER].overflows, found[AFTER].values) == (1.0, 0, 8)


# ---- blocks ----


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_sound_file(precision: str, swinir: OnnxArtifact, tmp_path: Path) -> None:
    model = networks.shared("swinir-light")
    artifact = half_file(swinir, tmp_path / "half.onnx", precision)
    report = block_quality(model, artifact, pictures(model.spec, (9, 7), (8, 12)), subject="this")
    assert [entry.block for entry in report.blocks] == IN_ORDER
    assert report.precision == precision and report.first_bad is None and report.subject == "this"
    first = report.blocks[0]
    assert first.own_psnr == first.psnr  # nothing before it
    for entry in report.blocks:
        assert entry.rounding.overflows == 0 and entry.rounding.values > 0 and entry.k == 0
        assert 0 < entry.share < 1 and entry.own_psnr >= report.floor
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["images"] == ["noise 0", "noise 1"] and len(document["blocks"]) == len(IN_ORDER)
    rows = quality_rows(report)
    assert [row[0] for row in rows] == IN_ORDER and {len(row) for row in rows} == {len(QUALITY_COLUMNS)}


def test_a_float32_file_is_seen_as_float16(swinir: OnnxArtifact, half: OnnxArtifact) -> None:
    model = networks.shared("swinir-light")
    images = pictures(model.spec, (9, 7))
    assert block_quality(model, swinir, images).blocks == block_quality(model, half, images).blocks


def test_a_block_answers_for_itself(half: OnnxArtifact, tmp_path: Path) -> None:
    model = networks.shared("swinir-light")
    images = pictures(model.spec, (9, 7))
    sound = by_name(block_quality(model, half, images))
    broken = tamper(half, tmp_path / "broken.onnx", f"{BLOCK.format(0, 1)}.mlp.fc2.bias")
    report = block_quality(model, broken, images)
    found = by_name(report)
    assert report.first_bad == BLOCK.format(0, 1)
    for name in IN_ORDER:
        if name == BLOCK.format(0, 1):
            assert found[name].own_psnr < report.floor
        else:
            assert found[name].own_psnr == sound[name].own_psnr
        assert (found[name].psnr < report.floor - 10) == (IN_ORDER.index(name) >= 1)


def test_the_block_that_overflows_is_named_and_the_rescale_mends_it(tmp_path: Path) -> None:
    model = louder_stream(networks.shared("swinir-light"), 2.0**14)
    images = pictures(model.spec, (9, 7))
    source = export_onnx(model, tmp_path / "source.onnx", source={"random_weights": 0})
    plain = block_quality(model, source, images)
    broken = by_name(plain)[plain.first_bad or ""]
    assert broken.rounding.overflows > 0 and broken.share > 1 and broken.psnr == -math.inf
    before = plain.blocks[: [entry.block for entry in plain.blocks].index(broken.block)]
    assert all(entry.rounding.overflows == 0 for entry in before)
    rescaled, _ = rescaled_file(source, tmp_path / "rescaled.onnx", images)
    mended = block_quality(model, rescaled, images)
    assert mended.first_bad is None
    for entry in mended.blocks:
        assert entry.k == rescaled.rescale.get(entry.block, 0)
        assert entry.rounding.overflows == 0 and entry.share <= 1 / 8
    assert json.loads(json.dumps(plain.to_json(), allow_nan=False))["first_bad"] == broken.block
    assert "not finite" in dict(zip(QUALITY_COLUMNS, quality_rows(plain)[-1], strict=True))["so far"]


@pytest.mark.slow
def test_keys_are_pytorchs(folder: Path, tmp_path: Path) -> None:
    model = networks.shared("semanir")
    half = half_file(networks.exported(folder, "semanir"), tmp_path / "half.onnx", "float16")
    report = block_quality(model, half, pictures(model.spec, (12, 8)))
    assert report.first_bad is None and len(report.blocks) == 6


# ---- refusals ----


def test_no_picture(half: OnnxArtifact) -> None:
    with pytest.raises(InputError, match="no picture"):
        block_quality(networks.shared("swinir-light"), half, [])


def test_a_file_without_block_names(half: OnnxArtifact, tmp_path: Path) -> None:
    model = networks.shared("swinir-light")
    with pytest.raises(InputError, match="names no blocks"):
        block_quality(model, dataclasses.replace(half, blocks=()), pictures(model.spec, (8, 8)))


def test_integers_alone_are_no_half_precision(swinir: OnnxArtifact) -> None:
    model = networks.shared("swinir-light")
    with pytest.raises(Unsupported, match=r"int8.*nothing in half"):
        block_quality(model, dataclasses.replace(swinir, precision="int8"), pictures(model.spec, (8, 8)))
