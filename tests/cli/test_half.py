"""Half-precision files on the command line: written, verified on their own rungs, restored with, described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agileir_export.export import read_artifact
from agileir_export.images.files import read_image

from .command import PRESET, SIZES, document, run, written


@pytest.mark.parametrize(("flag", "precision", "floor"), [("--fp16", "float16", 60), ("--bf16", "bfloat16", 45)])
def test_a_half_file_is_written_and_verified(flag: str, precision: str, floor: int) -> None:
    result = run("onnx", PRESET, "--random-weights", 3, flag, "-o", "half.onnx", *SIZES, "--json")
    assert result.exit_code == 0, result.output
    assert written() == ["half.onnx"]
    told = document(result)
    assert told["artifact"]["precision"] == precision
    (rung,) = [rung for rung in told["parity"]["rungs"] if rung["name"] == f"ONNX {precision} = PyTorch"]
    assert rung["floor"] == floor
    assert rung["passed"]
    artifact = read_artifact("half.onnx")
    assert artifact.provenance["random_weights"] == 3
    assert artifact.conversion == {"precision": precision, "float32_nodes": [], "underflows": {}}
    assert run("verify", "half.onnx", *SIZES).exit_code == 0


def test_a_picture_is_restored_with_a_half_file(files: dict[str, Path], trial: Path) -> None:
    assert run("onnx", PRESET, "--random-weights", 3, "--fp16", "-o", "half.onnx", "--no-verify").exit_code == 0
    assert run("restore", "half.onnx", files["picture"], "-o", "half.png").exit_code == 0
    assert run("restore", trial, files["picture"], "-o", "float.png").exit_code == 0
    half, full = (read_image(name).pixels.astype(np.float64) for name in ("half.png", "float.png"))
    assert half.shape == full.shape == (3, 10, 14)
    assert np.abs(half - full).max() < 2 / 255  # one step of 8 bits
    assert "float16" in run("info", "half.onnx").stdout


def test_an_opset_asked_for_is_kept_and_what_stays_float_is_named() -> None:
    result = run("onnx", PRESET, "--random-weights", 3, "--bf16", "--opset", 20, "-o", "half.onnx", "--no-verify")
    assert result.exit_code == 0
    assert "In float32: 5 Conv (takes no bfloat16 in opset 20)" in result.stderr
    (kept,) = read_artifact("half.onnx").conversion["float32_nodes"]
    assert kept == {"op": "Conv", "count": 5, "reason": "takes no bfloat16 in opset 20"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fp16", "--bf16"], "exclude each other"),
        (["--no-rescale"], "--fp16 only"),
        (["--bf16", "--no-rescale"], "--fp16 only"),
    ],
)
def test_options_that_contradict_each_other(options: list[str], words: str) -> None:
    result = run("onnx", PRESET, "--random-weights", 3, *options, "-o", "half.onnx")
    assert result.exit_code == 2
    assert words in result.stderr
    assert written() == []
