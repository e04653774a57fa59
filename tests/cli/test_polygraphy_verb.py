"""The verb ``polygraphy``."""

from __future__ import annotations

import os
from pathlib import Path

from .command import document, run, written


def test_the_script_is_printed_and_nothing_else(trial: Path) -> None:
    result = run("polygraphy", trial, "--trt", "--size", "16x16", "--psnr", 77)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "#!/bin/sh" and lines[-1].startswith("polygraphy run ")
    assert lines[-1].endswith("--agileir-images --agileir-size 16x16 --agileir-psnr 77")
    assert written() == []


def test_the_script_is_written_executable(trial: Path, files: dict[str, Path]) -> None:
    arguments = ("polygraphy", trial, "--rtx", "--images", files["picture"], "-o", "compare.sh")
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found = document(result)
    assert found["output"] == "compare.sh" and found["environment"] == {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    assert Path("compare.sh").read_text() == found["script"]
    assert os.access("compare.sh", os.X_OK)
    assert run(*arguments).exit_code == 2, "an existing file is kept"
    assert run(*arguments, "--overwrite").exit_code == 0


def test_what_is_refused(trial: Path, files: dict[str, Path]) -> None:
    refusals = {
        ("polygraphy", trial): "nothing to compare",
        ("polygraphy", trial, "--against", files["onnx"], "--trt", "--images", "nowhere"): "nowhere",
        ("polygraphy", files["foreign"], "--trt"): "not one of ours",
        ("polygraphy", "none.onnx", "--trt"): "does not exist",
        ("polygraphy", trial, "--trt", "-o", "none/compare.sh"): "no folder",
        ("polygraphy", trial, "--trt", "--size", "big"): "is not a size",
        ("polygraphy", trial, "--trt", "--rtx"): "--trt and --rtx: ONNX Runtime is compared with one of them",
        ("polygraphy", trial, "--rtx", "--against", files["onnx"], "--trt", "-o", "a.sh"): "make a script for each",
    }
    for arguments, message in refusals.items():
        result = run(*arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
    assert written() == []


def test_a_compared_file_is_not_replaced_by_the_script(trial: Path, files: dict[str, Path]) -> None:
    before = files["onnx"].read_bytes()
    for arguments in ((files["onnx"], "--trt"), (trial, "--against", files["onnx"])):
        result = run("polygraphy", *arguments, "-o", files["onnx"], "--overwrite")
        assert result.exit_code == 2 and "would replace what is read" in result.stderr
    assert files["onnx"].read_bytes() == before
