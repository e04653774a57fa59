"""The command line, verb by verb: what it writes and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from agileir_export.cli import main
from agileir_export.engines.doctor import CHECKS, Problem
from agileir_export.export import read_artifact
from agileir_export.images.files import Image, read_image, write_image
from agileir_export.models import preset_names
from agileir_export.restore.journal import JOURNAL

from ..export import networks
from .command import KIND, PRESET, SIZES, VERBS, document, run, written

# ---- help ----


def test_help_names_every_verb_in_a_line() -> None:
    result = run("--help")
    assert result.exit_code == 0
    listed = result.output.partition("Commands:")[2].splitlines()[1:]
    assert [line.split()[0] for line in listed] == list(VERBS)
    for verb in VERBS:
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"  {verb} ")]
        assert line.endswith(".") and "..." not in line
    assert "Exit codes" in result.output


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    for option in ("--json", "--verbose", "--quiet", "--debug"):
        assert option in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_every_option_is_explained() -> None:
    for name, verb in main.commands.items():
        for parameter in verb.params:
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_version() -> None:
    from agileir_export import __version__

    assert run("--version").output == f"agileir-export, version {__version__}\n"


# ---- onnx ----


def test_onnx_exports_and_verifies(files: dict[str, Path]) -> None:
    result = run("onnx", files["swinir"], "-o", "a.onnx", *SIZES, "--html", "a.html")
    assert result.exit_code == 0
    assert written() == ["a.html", "a.onnx"]
    for part in ("Parity of a.onnx", "ONNX float32 = PyTorch", "restores ground truth", "pass", "5x7", "8x12"):
        assert part in result.stdout
    artifact = read_artifact("a.onnx")
    assert f"Wrote a.onnx: {artifact.nodes} nodes, sha256 {artifact.sha256[:12]}" in result.stderr
    assert artifact.provenance["model"] == "swinir.pth"
    assert artifact.fixed_sizes == {}
    assert "Parity of a.onnx" in Path("a.html").read_text(encoding="utf-8")


def test_onnx_json(files: dict[str, Path]) -> None:
    result = run("onnx", PRESET, "--weights", files["swinir"], "-o", "a.onnx", *SIZES, "--json", "--min-psnr", 90)
    assert result.exit_code == 0
    told = document(result)
    assert told["artifact"] == read_artifact("a.onnx").to_json()
    assert told["artifact"]["provenance"]["weights"] == "swinir.pth"
    assert told["parity"]["passed"] is True
    assert told["parity"]["subject"] == "a.onnx"
    assert told["parity"]["rungs"][1]["floor"] == 90
    assert "Verifying a.onnx: ONNX float32" in result.stderr


def test_static_size_is_also_the_size_of_the_pictures(files: dict[str, Path]) -> None:
    result = run("onnx", files["swinir"], "-o", "a.onnx", "--static", "7x9", "--json")
    assert result.exit_code == 0
    assert read_artifact("a.onnx").fixed_sizes == {"batch": 1, "height": 8, "width": 12}
    measures = document(result)["parity"]["rungs"][1]["measures"]
    assert {(m["height"], m["width"]) for m in measures} == {(8, 12)}


def test_decomposed_opset_and_top_k(files: dict[str, Path]) -> None:
    arguments = ("--decomposed", "--opset", 18, "--top-k", 3, "--no-verify", "--json")
    result = run("onnx", files["semanir"], "-o", "a.onnx", *arguments)
    assert result.exit_code == 0
    assert list(document(result)) == ["artifact"]
    artifact = read_artifact("a.onnx")
    assert (artifact.operators, artifact.spec.top_k, artifact.provenance["top_k"]) == ({}, 3, 3)
    assert {entry.domain: entry.version for entry in onnx.load("a.onnx").opset_import} == {"": 18}


def test_a_network_of_mixed_blocks_needs_decomposition(files: dict[str, Path]) -> None:
    result = run("onnx", files["mixed"], "-o", "a.onnx")
    assert result.exit_code == 3
    assert "--decomposed" in result.stderr
    assert written() == []


def test_random_weights_are_recorded(trial: Path) -> None:
    assert read_artifact(trial).provenance["random_weights"] == 3


# ---- verify ----


def test_a_missed_floor(files: dict[str, Path]) -> None:
    arguments = ("verify", files["onnx"], "--reference", files["swinir"], "--size", "5x7", "--min-psnr", 400)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "MISSED" in result.stdout
    assert "misses the rung 'ONNX float32 = PyTorch'" in result.stderr
    assert "the floor is 400 dB" in result.stderr
    told = document(again := run(*arguments, "--json"))
    assert again.exit_code == 1
    assert (told["passed"], told["reports"][0]["passed"]) == (False, False)
    assert "misses the rung" in again.stderr


def test_a_missed_floor_keeps_the_file() -> None:
    result = run("onnx", PRESET, "--random-weights", 0, "-o", "a.onnx", "--size", "5x7", "--min-psnr", 400)
    assert result.exit_code == 1
    assert written() == ["a.onnx"]


def test_verify_a_file_that_knows_its_origin(trial: Path) -> None:
    result = run("verify", trial, *SIZES, "--json", "--html", "a.html")
    assert result.exit_code == 0
    (report,) = document(result)["reports"]
    assert report["subject"] == str(trial)
    assert [rung["name"] for rung in report["rungs"]] == ["folded PyTorch = PyTorch", "ONNX float32 = PyTorch"]
    assert written() == ["a.html"]


def test_verify_a_file_made_from_a_checkpoint(files: dict[str, Path]) -> None:
    result = run("verify", files["onnx"], *SIZES)
    assert result.exit_code == 2
    assert "--reference" in result.stderr
    assert run("verify", files["onnx"], "--reference", files["swinir"], *SIZES).exit_code == 0
    weights = ("--reference", PRESET, "--weights", files["swinir"])
    assert run("verify", files["onnx"], *weights, *SIZES).exit_code == 0


def test_verify_with_the_wrong_reference(files: dict[str, Path], trial: Path) -> None:
    result = run("verify", trial, "--reference", files["swinir"])
    assert result.exit_code == 2
    assert "the weights differ" in result.stderr


def test_a_reference_takes_the_top_k_of_the_file(files: dict[str, Path]) -> None:
    assert run("onnx", files["semanir"], "-o", "a.onnx", "--top-k", 3, "--no-verify").exit_code == 0
    reference = ("verify", "a.onnx", "--reference", files["semanir"], *SIZES)
    assert run(*reference).exit_code == 0
    result = run(*reference, "--top-k", 4)
    assert result.exit_code == 2
    assert "--top-k 3" in result.stderr


def test_verify_a_model_leaves_no_file(files: dict[str, Path]) -> None:
    result = run("verify", PRESET, "--random-weights", 0, "--json", "--images", files["samples"], "--size", "4x4")
    assert result.exit_code == 0
    (report,) = document(result)["reports"]
    assert report["subject"] == PRESET
    assert {m["image"] for m in report["rungs"][1]["measures"]} == {path.name for path in files["samples"].iterdir()}
    assert written() == []


def test_verify_on_ground_truth_of_ones_own(files: dict[str, Path], trial: Path) -> None:
    """The pictures of `--images` are what the others are restored from."""
    for name, size in (("sharp/a.png", (11, 14)), ("small/ax2.png", (5, 7))):
        Path(name).parent.mkdir()
        write_image(name, Image(networks.images(1, 3, *size)[0]))
    arguments = ("verify", trial, *SIZES, "--json", "--ground-truth", "sharp")
    for more in ((), ("--images", "small")):
        (report,) = document(run(*arguments, *more))["reports"]
        (measure,) = report["rungs"][-1]["task"]
        assert measure["image"] == "a.png" and measure["reference"] == pytest.approx(measure["candidate"], abs=0.01)
    result = run(*arguments, "--images", files["picture"])
    assert result.exit_code == 2 and "no input among --images" in result.stderr


def test_verify_times_what_it_verifies(trial: Path) -> None:
    (report,) = document(run("verify", trial, *SIZES, "--time", "--json"))["reports"]
    time = report["time"]
    assert (time["target"], time["rows"], time["columns"]) == ("onnxruntime", 8, 12)
    assert 0 < time["least_seconds"] <= time["median_seconds"] and time["runs"] >= 1
    assert run("onnx", PRESET, "--random-weights", 0, "-o", "half.onnx", "--fp16", "--no-verify").exit_code == 0
    result = run("verify", "half.onnx", *SIZES, "--time", "--json")
    assert document(result)["reports"][0]["time"] is None and "Not timed" in result.stderr


def test_pictures_that_are_missing_are_known_before_a_file_is_written(files: dict[str, Path]) -> None:
    for option in ("--images", "--ground-truth"):
        result = run("onnx", files["swinir"], "-o", "a.onnx", option, "none.png")
        assert result.exit_code == 2 and "none.png" in result.stderr and written() == []


# ---- restore ----


def test_restore_with_a_file_and_with_a_model(files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], files["picture"], "-o", "a.png")
    assert result.exit_code == 0
    assert "a.png" in result.stdout and "5x7 -> 10x14" in result.stdout
    told = document(run("restore", files["swinir"], files["picture"], "-o", "folder", "--json"))
    assert told["runner"]["target"] == "torch"
    (entry,) = told["files"]
    assert (entry["source"], entry["output"]) == (str(files["picture"]), str(Path("folder/picture.png")))
    assert (entry["size_in"], entry["size_out"]) == ([5, 7], [10, 14])
    first, second = (read_image(path).pixels for path in ("a.png", "folder/picture.png"))
    assert first.shape == (3, 10, 14)
    assert np.abs(first - second).max() <= 1 / 255


def test_a_picture_in_place_of_the_model(files: dict[str, Path]) -> None:
    result = run("restore", files["picture"], files["onnx"], "-o", "a.png")
    assert result.exit_code == 2
    assert f"agileir-export restore {files['onnx']} {files['picture']}" in " ".join(result.stderr.split())


def test_restore_overwrites_only_when_asked(files: dict[str, Path]) -> None:
    Path("a.png").write_bytes(b"old")
    arguments = ("restore", files["onnx"], files["picture"], "-o", "a.png")
    result = run(*arguments)
    assert result.exit_code == 2
    assert "a.png exists already" in result.stderr
    assert Path("a.png").read_bytes() == b"old"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert read_image("a.png").pixels.shape == (3, 10, 14)


def test_restore_a_folder(files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], files["samples"], "-o", "out")
    assert result.exit_code == 0
    names = sorted(path.name for path in files["samples"].iterdir())
    assert sorted(path.name for path in Path("out").iterdir()) == [JOURNAL, *names]
    assert f"Restoring: {names[1]} (2 of 2)" in result.stderr


# ---- models, info, doctor ----


def test_models_lists_every_preset() -> None:
    told = document(run("models", "--json"))
    assert [entry["name"] for entry in told] == preset_names()
    assert PRESET in [entry["name"] for entry in told]
    shown = run("models")
    assert shown.exit_code == 0
    assert all(f" {name} " in shown.stdout for name in preset_names())


def test_info_of_a_file(files: dict[str, Path]) -> None:
    told = document(run("info", files["onnx"], "--json"))
    artifact = read_artifact(files["onnx"])
    assert {**told, **artifact.to_json()} == told
    assert told["inputs"] == [{"name": "input", "type": "float", "shape": ["batch", 3, "height", "width"]}]
    assert told["outputs"][0]["shape"] == ["batch", 3, "2*height", "2*width"]
    assert (told["kind"], told["opset"], told["bytes"]) == ("onnx", 20, len(artifact.data))
    assert told["parameters"] >= sum(p.numel() for p in networks.shared(KIND).parameters())
    assert told["multiplications_per_pixel"] > 0
    shown = run("info", files["onnx"]).stdout
    for part in ("spec.family", "swinir", "provenance.torch", "operators.ShiftedWindowAttention", told["sha256"]):
        assert part in shown
    assert "{" not in shown
    assert "None" not in shown


def test_info_of_a_model() -> None:
    """Of one that is packaged, and of one that is not: nothing is downloaded."""
    packaged = document(run("info", "agileir_tiny_x2", "--json"))
    assert (packaged["kind"], packaged["weights"], packaged["spec"]["scale"]) == ("model", "packaged", 2)
    preset = document(run("info", PRESET, "--json"))
    assert preset["parameters"] == sum(p.numel() for p in networks.shared(KIND).parameters())
    assert "--weights FILE" in preset["weights"]


def test_info_of_a_checkpoint(files: dict[str, Path]) -> None:
    told = document(run("info", files["swinir"], "--json"))
    assert told["kind"] == "checkpoint"
    assert told["spec"]["family"] == "swinir"
    parameters = sum(p.numel() for p in networks.shared(KIND).parameters())
    assert told["parameters"] == parameters
    assert str(parameters) in run("info", files["swinir"]).stdout


def test_doctor() -> None:
    told = document(run("doctor", "--json"))
    assert {target["name"] for target in told["targets"]} >= {"onnxruntime-cpu", "tensorrt build"}
    shown = run("doctor").stdout
    assert "onnxruntime-cpu" in shown and "works" in shown
    assert told["components"]["torch"]["version"] in shown


def test_square_brackets_are_no_markup(files: dict[str, Path]) -> None:
    target = Path("[bold]a[red].png")
    result = run("restore", files["onnx"], files["picture"], "-o", target)
    assert str(target) in result.stdout


def test_doctor_answers_for_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("doctor", "--target", "onnxruntime-cpu").exit_code == 0
    unknown = run("doctor", "--target", "abacus")
    assert unknown.exit_code == 2 and "onnxruntime-cpu" in unknown.stderr
    monkeypatch.setitem(CHECKS, "onnxruntime-cpu", lambda found: Problem("no beads", "buy some"))
    missing = run("doctor", "--target", "onnxruntime")
    assert missing.exit_code == 4 and "onnxruntime-cpu does not work here: no beads" in missing.stderr
    assert document(run("doctor", "--target", "onnxruntime", "--json"))["targets"]
