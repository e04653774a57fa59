"""What goes wrong on the command line: the message, the exit code, and that nothing is left behind."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from agileir_export.errors import EnvironmentProblem

from .command import PRESET, assert_refused, document, run, written

REFUSED = [
    (("onnx", "swinir_trail_x2", "-o", "a.onnx"), rf"No model preset is named .*Did you mean {PRESET}"),
    (("onnx", PRESET, "-o", "a.onnx"), r"no trained weights.*--random-weights SEED"),
    (("verify", PRESET), r"no trained weights.*--weights FILE"),
    (("restore", PRESET, "{picture}", "-o", "a.png"), "no trained weights"),
    (("onnx", "{text}", "-o", "a.onnx"), r"text\.pth: cannot be read as a checkpoint"),
    (("onnx", "none.pth", "-o", "a.onnx"), r"none\.pth: the checkpoint does not exist"),
    (("onnx", PRESET, "--random-weights", "-1", "-o", "a.onnx"), "seed"),
    (("onnx", PRESET, "--random-weights", "0", "--weights", "{swinir}", "-o", "a.onnx"), "one of them"),
    (("onnx", "{swinir}", "--random-weights", "0", "-o", "a.onnx"), "its own weights"),
    (("onnx", "{swinir}", "--top-k", "3", "-o", "a.onnx"), "top_k 3 does not fit"),
    (("onnx", "{swinir}", "--attention", "bypassed", "-o", "a.onnx"), "only AgileIR"),
    (("onnx", "{swinir}", "--opset", "99", "-o", "a.onnx"), r"opset must be in 18\.\.23, got 99"),
    (("onnx", "{swinir}", "-o", "gone/a.onnx"), "there is no folder gone"),
    (("onnx", "{swinir}", "-o", "a.bin"), r"a\.bin does not end in \.onnx"),
    (("onnx", "{swinir}", "-o", "a.onnx", "--html", "gone/a.html"), "there is no folder gone"),
    (("onnx", "{swinir}", "-o", "a.onnx", "--no-verify", "--html", "a.html"), "--no-verify leaves nothing"),
    (("onnx", "{swinir}", "-o", "a.onnx", "--no-verify", "--min-psnr", "0"), "--no-verify leaves nothing"),
    (("verify", "{broken}"), "not an ONNX file"),
    (("verify", "{foreign}"), r"not one of ours.*agileir-export onnx"),
    (("verify", "none.onnx"), r"none\.onnx: the file does not exist"),
    (("verify", "{onnx}", "--weights", "{swinir}"), "--reference PRESET"),
    *(
        (("verify", "{onnx}", *given), f"{given[0]} was decided at export")
        for given in (("--top-k", "3"), ("--random-weights", "5"), ("--attention", "bypassed"))
    ),
    (("bundle", "{onnx}", "-o", "b", "--no-verify", "--top-k", "3"), "--top-k was decided at export"),
    (("polygraphy", "{onnx}", "--trt", "--overwrite"), "--overwrite is for -o"),
    (("verify", PRESET, "--random-weights", "0", "--reference", "x"), "its own reference"),
    (("verify", "{onnx}", "{onnx}", "--html", "a.html"), "one file at a time"),
    (("verify", "{onnx}", "--reference", "{swinir}", "--images", "none.png"), r"none\.png"),
    (("restore", "{onnx}", "{picture}", "-o", "a.png", "--top-k", "3"), "decided at export"),
    (("restore", "{onnx}", "{text}", "-o", "a.png"), r"text\.pth.*no image"),
    (("restore", "{onnx}", "none.png", "-o", "a.png"), r"none\.png"),
    (("restore", "{foreign}", "{picture}", "-o", "a.png"), "not one of ours"),
    (("info", "{foreign}"), "not one of ours"),
    (("info", "{text}"), "cannot be read as a checkpoint"),
    (("info", "none"), "does not exist"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_bad_input(arguments: tuple[str, ...], message: str, files: dict[str, Path]) -> None:
    told = assert_refused(2, message, *(argument.format_map(files) for argument in arguments))
    assert told["code"].startswith("input")


@pytest.mark.parametrize("size", ["12", "0x4", "4x00", "x4", "-1x3", "4x3x2", "4.0x3", "4 x3", "1000000x1", "٣x٣"])
@pytest.mark.parametrize("option", ["--size", "--static"])
def test_bad_sizes(option: str, size: str, files: dict[str, Path]) -> None:
    result = run("onnx", files["swinir"], "-o", "a.onnx", option, size)
    assert result.exit_code == 2
    assert "is not a size such as 128x96" in result.stderr
    assert written() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "x", "--min-psnr", "nan"), "'nan' is not a number of dB"),
        (("restore", "x", "a.png", "-o", "b.png", "--seam-psnr", "nan"), "'nan' is not a number of dB"),
        (("polygraphy", "x", "--rtx", "--psnr", "nan"), "'nan' is not a number of dB"),
        (("trt", "x", "-o", "a.plan", "--gpu", ","), "',' names no GPU in one place"),
        (("trt", "x", "-o", "a.plan", "--gpu", "sm86,,sm89"), "names no GPU in one place"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_values_that_are_none(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_more_keys_than_a_window_has_are_told(files: dict[str, Path]) -> None:
    result = run("onnx", files["semanir"], "--top-k", "999", "-o", "a.onnx", "--no-verify")
    assert result.exit_code == 0 and "top_k 999 is all 16 keys that a window has" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("export",), ("onnx",), ("onnx", "x"), ("models", "--jsn"), ("verify",), ("info",)]
)
def test_usage(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: agileir-export" in result.stderr


# ---- what nobody planned ----


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raising(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("agileir_export.engines.diagnose", raising)


def test_a_defect_has_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, ZeroDivisionError("by nothing"))
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr.startswith("error: ZeroDivisionError: by nothing\n")
    assert "report" in result.stderr
    assert "Traceback" not in result.stderr
    told = document(run("doctor", "--json"))["error"]
    assert (told["code"], told["exit_code"]) == ("internal", 5)


@pytest.mark.parametrize("place", [("--debug", "doctor"), ("doctor", "--debug")], ids=" ".join)
@pytest.mark.parametrize("error", [ZeroDivisionError("by nothing"), EnvironmentProblem("by nothing")], ids=repr)
def test_debug_shows_the_traceback(place: tuple[str, str], error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, error)
    result = run(*place)
    assert result.exit_code == (5 if isinstance(error, ZeroDivisionError) else 4)
    assert "Traceback (most recent call last)" in result.stderr
    assert f"{type(error).__name__}: by nothing" in result.stderr


def test_the_environment_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, EnvironmentProblem("What.", why="Why.", fix="Fix."))
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (4, "error: What.\n  Why.\n  Fix.\n")


def test_an_interrupt_leaves_nothing(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        assert len(written()) == 1  # the temporary file
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    result = run("restore", files["onnx"], files["picture"], "-o", "a.png")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr
    assert written() == []


# ---- who is told what ----


@pytest.mark.parametrize("before", [True, False])
def test_quiet(before: bool, files: dict[str, Path]) -> None:
    arguments: list[object] = ["restore", files["onnx"], files["picture"], "-o", "a.png"]
    arguments.insert(0 if before else len(arguments), "-q")
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "a.png" in result.stdout  # results are results
    assert run("-q", "info", files["released"]).stderr == ""


def test_quiet_still_tells_errors() -> None:
    assert "error: " in run("-q", "info", "none").stderr


def test_json_before_the_verb() -> None:
    assert document(run("--json", "doctor"))["targets"]


def test_a_warning_is_shown(files: dict[str, Path]) -> None:
    result = run("info", files["released"])
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: ")
    assert "released code" in result.stderr
    assert str(Path(__file__).parents[1]) not in result.stderr  # no line of source code
    assert document(run("info", files["released"], "--json"))["kind"] == "checkpoint"


def test_warnings_of_others_are_for_the_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    def chatty() -> Any:
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        return real()

    from agileir_export.engines import diagnose as real

    monkeypatch.setattr("agileir_export.engines.diagnose", chatty)
    before = warnings.showwarning
    assert "old thing" not in run("doctor").stderr
    assert "warning: old thing" in run("doctor", "-v").stderr
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    "arguments", [("onnx",), ("models", "--jsn"), ("verify",), ("export",), ("onnx", "x", "--static", "0x0")]
)
@pytest.mark.parametrize("before", [False, True])
def test_usage_errors_are_a_document_too(arguments: tuple[str, ...], before: bool) -> None:
    result = run(*(("--json", *arguments) if before else (*arguments, "--json")))
    told = document(result)["error"]
    assert result.exit_code == told["exit_code"] == 2
    assert told["code"] == "usage" and told["what"] in result.stderr
    assert set(told) == {"code", "exit_code", "what", "why", "fix"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "{long}"),
        ("onnx", "{long}.pth", "-o", "a.onnx"),
        ("onnx", "{swinir}", "-o", "{long}.onnx"),
        ("verify", "{long}.onnx"),
        ("restore", "{onnx}", "{long}.png", "-o", "a.png"),
        ("restore", "{onnx}", "{picture}", "-o", "{long}.png"),
        ("trt", "{onnx}", "-o", "{long}.plan"),
        ("calibrate", "{onnx}", "-o", "a.onnx", "--recipe", "{long}"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_no_system_takes(arguments: tuple[str, ...], files: dict[str, Path]) -> None:
    result = run(*(argument.format_map({**files, "long": "x" * 256}) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output and written() == []


def test_what_was_verified_before_an_error_is_told(files: dict[str, Path]) -> None:
    arguments = ("verify", files["onnx"], files["broken"], "--reference", files["swinir"], "--size", "8x8")
    told = document(run(*arguments, "--json"))
    assert told["error"]["exit_code"] == 2
    assert [report["subject"] for report in told["reports"]] == [str(files["onnx"])]
