"""The command line as a process of its own: start-up cost, streams, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

START = "from agileir_export.cli import main; main(prog_name='agileir-export')"
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "onnxscript", "rich", "PIL")
MEASURED = f"""
import sys, time
from agileir_export.cli import main
try:
    main(sys.argv[1:], prog_name="agileir-export")
finally:
    print(time.process_time(), *({{*{HEAVY!r}}} & {{*sys.modules}}), file=sys.stderr)
"""


def agileir(*arguments: object, program: str = START) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["onnx", "--help"], ["restore", "--help"], ["--version"]], ids=" ".join
)
def test_help_is_instant_and_light(arguments: list[str]) -> None:
    result = agileir(*arguments, program=MEASURED)
    assert result.returncode == 0
    assert "agileir-export" in result.stdout
    seconds, *loaded = result.stderr.split()
    assert loaded == []
    assert float(seconds) < 0.5  # of CPU time, the interpreter's start included


def test_it_runs_as_a_module() -> None:
    """For where the scripts of an environment are not on the path."""
    for module in ("agileir_export", "agileir_export.cli"):
        result = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("agileir-export, version ")


def test_an_engine_that_needs_no_conversion_needs_no_pytorch(files: dict[str, Path]) -> None:
    result = agileir("trt", files["onnx"], "--target", "rtx", "-o", "a.plan", "--dry-run", program=MEASURED)
    assert "TensorRT-RTX" in result.stdout
    _, *loaded = result.stderr.splitlines()[-1].split()
    assert "onnx" in loaded
    assert "torch" not in loaded


def test_a_document_on_stdout_and_nothing_else() -> None:
    result = agileir("doctor", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["targets"]
    assert result.stderr == ""


def test_nobody_is_told_of_what_runs_here(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ONNX Runtime is going to send, it keeps in the user's cache folder first; OpenVINO in the home folder."""
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "ours"))
    for name in ("XDG_CACHE_HOME", "TMPDIR", "HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    assert agileir("restore", files["onnx"], files["picture"], "-o", "a.png").returncode == 0
    assert [path for name in ("XDG_CACHE_HOME", "TMPDIR", "HOME") for path in (tmp_path / name).iterdir()] == []


def test_a_table_is_not_cut_off_by_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert "onnxruntime-cpu" in agileir("doctor").stdout


def test_bad_input_ends_with_2_and_no_traceback(tmp_path: Path) -> None:
    result = agileir("info", tmp_path / "none.onnx")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    told = agileir("info", tmp_path / "none.onnx", "--json")
    assert told.returncode == json.loads(told.stdout)["error"]["exit_code"] == 2


def test_a_defect_ends_with_5() -> None:
    breaking = f"import agileir_export.engines as e; e.diagnose = lambda: 1 / 0; {START}"
    result = agileir("doctor", program=breaking)
    assert (result.returncode, result.stdout) == (5, "")
    assert result.stderr.startswith("error: ZeroDivisionError")
    debugged = agileir("doctor", "--debug", program=breaking)
    assert debugged.returncode == 5
    assert "Traceback" in debugged.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(
    ("stage", "sent"), [("Exporting", signal.SIGINT), ("Verifying", signal.SIGINT), ("Exporting", signal.SIGTERM)]
)
def test_a_signal_leaves_nothing_half_written(
    stage: str, sent: signal.Signals, files: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "a.onnx"
    arguments = ["onnx", str(files["swinir"]), "-o", str(output)]
    program = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {START}"
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith(stage):
                process.send_signal(sent)
                break
        said = process.stderr.read()
    assert process.returncode == 130
    assert "Interrupted" in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == (["a.onnx"] if stage == "Verifying" else [])


@pytest.mark.slow
def test_a_real_preset_from_export_to_picture(files: dict[str, Path], tmp_path: Path) -> None:
    file, picture = tmp_path / "a.onnx", tmp_path / "a.png"
    exported = agileir("onnx", "agileir_lightest_x2", "--random-weights", 0, "-o", file, "--json", "--size", "9x20")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["parity"]["passed"] is True
    assert agileir("verify", file, "--size", "20x9").returncode == 0
    assert agileir("restore", file, files["picture"], "-o", picture).returncode == 0
    assert picture.exists()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_letters_that_the_terminal_does_not_know(
    encoding: str, form: list[str], files: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "wyjście 日本.png"
    command = [sys.executable, "-c", START, "restore", str(files["onnx"]), str(files["picture"]), "-o", str(output)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    result = subprocess.run([*command, *form], capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert b"wyj\\u015bcie" in result.stdout and output.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models"], "No space left on device."),
        (["models", "--json"], "No space left on device."),
        (["doctor", "--json"], "No space left on device."),
        (["models", "-h"], "No space left on device."),
        (["-h"], "No space left on device."),
        (["info", "nothing.onnx", "--json"], "nothing.onnx: the file does not exist."),
    ],
)
def test_a_full_disk_behind_stdout(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # which would leave nothing to be written at the end
    command = [sys.executable, "-c", START, *arguments]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {said}")
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr


@pytest.mark.parametrize("arguments", [["models"], ["info", "nothing.onnx"]])
def test_a_closed_stdout(arguments: list[str]) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", START, *arguments]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert result.returncode == (0 if arguments == ["models"] else 2), result.stderr
    assert "Traceback" not in result.stderr and "AttributeError" not in result.stderr
