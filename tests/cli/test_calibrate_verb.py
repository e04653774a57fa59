"""The verb calibrate: what it writes, prints and refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agileir_export.calib import read_recipe
from agileir_export.export import read_artifact

from ..small_samples import cut_samples
from .command import PRESET, document, run, written


@pytest.fixture(autouse=True)
def small(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    samples = cut_samples(files["samples"])
    monkeypatch.setattr("agileir_export.calib.material.sample_images", lambda: samples)
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_a_file_a_recipe_and_a_plot_are_written(files: dict[str, Path]) -> None:
    arguments = ("--ground-truth", files["samples"], "--crops", "2", "--save-recipe", "r.json", "--plot", "p.svg")
    result = run("calibrate", files["onnx"], "-o", "a.onnx", *arguments)
    assert result.exit_code == 0, result.output
    assert written() == ["a.onnx", "p.svg", "r.json"]
    assert read_artifact("a.onnx").precision == "int8"
    assert "Every layer alone in INT8" in result.stdout and "layers.0.conv" in result.stdout
    assert "of all" in result.stdout and "outside the operators" in result.stdout
    assert "<svg" in Path("p.svg").read_text()
    again = run("calibrate", files["onnx"], "-o", "b.onnx", "--recipe", "r.json", "--json")
    assert again.exit_code == 0, again.output
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    told = document(again)
    assert told["artifact"]["precision"] == "int8"
    assert told["calibration"]["recipe"]["int8"] == list(read_recipe("r.json").int8)
    assert [*Path(os.environ["AGILEIR_EXPORT_CACHE"], "ranges").iterdir()]


def test_a_model_is_exported_on_the_way() -> None:
    result = run(
        "calibrate", PRESET, "--random-weights", "1", "-o", "a.onnx", "--crops", "1", "--quick", "--no-cache", "-q"
    )
    assert result.exit_code == 0, result.output
    assert written() == ["a.onnx"]
    assert read_artifact("a.onnx").provenance["random_weights"] == 1


def test_a_missed_budget_exits_with_1_and_leaves_nothing(files: dict[str, Path]) -> None:
    result = run("calibrate", files["onnx"], "-o", "a.onnx", "--min-psnr", "300", "--crops", "1", "--no-cache")
    assert result.exit_code == 1
    assert "No layer can be INT8" in result.stderr
    assert written() == []


def test_bad_input_exits_with_2_and_leaves_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    for arguments in (
        ("--images", tmp_path / "gone"),
        ("--images", files["text"]),
        ("--psnr-budget", "-1"),
        ("--recipe", files["text"]),
        ("--percentile", "99"),
        ("--percentile", "99", "--method", "minmax"),
        ("--min-agreement", "0.9"),
        ("--static", "8x8"),
        ("--save-recipe", "no/folder.json"),
        ("--plot", "no/folder.svg"),
        ("--plot", "a.onnx"),
        ("-o", "a.txt"),
        ("-o", files["onnx"]),
        ("--top-k", "3"),
    ):
        result = run("calibrate", files["onnx"], "-o", "a.onnx", *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert "Traceback" not in result.output
    assert read_artifact(files["onnx"]).precision == "float32"
    for source in (files["broken"], files["foreign"], "gone.onnx"):
        assert run("calibrate", source, "-o", "a.onnx").exit_code == 2
    assert written() == []


SETTLED = (
    *("--images=.", "--ground-truth=.", "--crops=64", "--held-out=8", "--seed=0", "--method=mse", "--percentile=99"),
    *("--psnr-budget=0.1", "--min-psnr=38", "--min-agreement=0.95", "--equalise", "--no-equalise", "--ends"),
    *("--quick", "--plot=p.svg"),
)


@pytest.mark.parametrize("option", SETTLED)
def test_a_recipe_leaves_nothing_to_measure_or_choose(option: str, files: dict[str, Path]) -> None:
    result = run("calibrate", files["onnx"], "-o", "a.onnx", "--recipe", "r.json", option)
    assert result.exit_code == 2
    name = option.partition("=")[0].replace("--no-", "--")
    assert f"--recipe measures nothing: it leaves nothing for {name} to do" in " ".join(result.stderr.split())
    assert written() == []


def test_the_share_of_equal_keys_is_for_models_that_choose_keys(files: dict[str, Path]) -> None:
    result = run("calibrate", files["onnx"], "-o", "a.onnx", "--min-agreement", "0.95", "--no-cache")
    assert result.exit_code == 2
    assert "--min-agreement is for SemanIR" in result.stderr
