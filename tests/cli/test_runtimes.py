"""``--runtime`` of restore and verify, and what calibrate says of time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from agileir_export.calib import timing
from agileir_export.commands import options
from agileir_export.engines import opening
from agileir_export.engines.openvino import choice, loading
from agileir_export.engines.openvino.choice import Check
from agileir_export.errors import OnnxFileError
from agileir_export.export import OnnxArtifact
from agileir_export.export.precision import to_precision
from agileir_export.images.files import read_image

from ..engines.sidecars import describe
from .command import assert_refused, document, run

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


def test_the_names_are_those_of_the_library() -> None:
    assert options.RUNTIMES == opening.RUNTIMES


@needs_openvino
def test_restore_under_either(files: dict[str, Path]) -> None:
    for runtime in ("onnxruntime", "openvino"):
        arguments = ("restore", files["onnx"], files["picture"], "-o", f"{runtime}.png", "--runtime", runtime, "--json")
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert document(result)["runner"]["target"] == runtime
    first, second = (read_image(f"{runtime}.png").pixels for runtime in ("onnxruntime", "openvino"))
    assert np.abs(first - second).max() <= 1 / 255


@needs_openvino
def test_where_nothing_is_said_the_choice_is_told(
    files: dict[str, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "openvino_version", loading.openvino_version)
    checks = [Check(120.0, 100.0, 0.5)]
    monkeypatch.setattr(choice, "compare_runtimes", lambda *_: checks.pop())
    for name in ("a.png", "b.png"):
        result = run("restore", files["onnx"], files["picture"], "-o", name, "--json")
        assert document(result)["runner"]["target"] == "openvino"
        assert "in 0.50 of ONNX Runtime's time" in result.stderr
    assert any((own_cache / "runtimes").iterdir())


def test_only_onnx_files_have_runtimes(files: dict[str, Path], own_cache: Path, swinir: OnnxArtifact) -> None:
    engine = own_cache / "a.plan"
    describe(engine, swinir.spec, b"a plan")
    assert_refused(2, "--runtime is for ONNX files", "verify", engine, "--runtime", "openvino")
    for source in (files["swinir"], "swinir_trial_x2", engine):
        assert_refused(
            2,
            "openvino runs ONNX files only",
            "restore",
            source,
            files["picture"],
            "-o",
            "a.png",
            "--runtime",
            "openvino",
        )


@needs_openvino
def test_verify_adds_a_rung(trial: Path) -> None:
    arguments = ("verify", trial, "--size", "5x7", "--size", "8x12", "--json")
    (plain,), (report,) = (document(run(*arguments, *more))["reports"] for more in ((), ("--runtime", "openvino")))
    names = [rung["name"] for rung in report["rungs"]]
    assert names == [*(rung["name"] for rung in plain["rungs"]), "openvino float32 = PyTorch"]
    assert report["rungs"][-1]["floor"] == 100 and report["passed"]
    assert report["runners"]["openvino"]["version"] == loading.openvino_version()
    missed = run("verify", trial, "--size", "5x7", "--runtime", "openvino", "--tiles", "--min-psnr", 400)
    assert missed.exit_code == 1
    assert "seam" in missed.output


def test_calibrate_tells_the_time(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr("agileir_export.engines.openvino.turns.SIDE", 16)
    monkeypatch.setattr(timing, "openvino_version", lambda: "2026.4.1")

    def refuse(*_: object) -> object:
        raise OnnxFileError("OpenVINO refuses it")

    monkeypatch.setattr(timing, "OpenVinoRunner", refuse)
    arguments = ("calibrate", files["onnx"], "--ground-truth", files["samples"], "--crops", "1", "--quick")
    result = run(*arguments, "-o", "a.onnx", "--save-recipe", "r.json")
    assert result.exit_code == 0, result.output
    assert "time under onnxruntime" in result.stdout and "of float32's (medians: " in result.stdout
    assert "Time not measured: OpenVINO refuses it" in result.stderr
    told = document(run("calibrate", files["onnx"], "-o", "b.onnx", "--recipe", "r.json", "--json"))
    (gain,) = told["times"]
    assert gain["runtime"] == "onnxruntime" and (gain["rows"], gain["columns"]) == (16, 16)
    assert gain["ratio"] == gain["int8_seconds"] / gain["float32_seconds"] > 0


def test_half_precision_has_no_time(swinir: OnnxArtifact) -> None:
    half = to_precision(swinir, "float16")
    assert timing.time_gains(swinir, half) == timing.time_gains(half, half) == []
