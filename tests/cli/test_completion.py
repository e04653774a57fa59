"""Tab completion, asked for as a shell asks, and an interruption before the command line is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import BashComplete

import agileir_export.models
from agileir_export.cli import main
from agileir_export.commands import completion
from agileir_export.engines.profiles import PRESETS


def completed(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[tuple[str, str]]:
    """(type, value) of what bash is offered for the last word."""
    monkeypatch.setenv("COMP_WORDS", " ".join(("agileir-export", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    answer = BashComplete(main, {}, "agileir-export", "_AGILEIR_EXPORT_COMPLETE").complete()
    return [(kind, value) for kind, _, value in (line.partition(",") for line in answer.splitlines())]


def test_presets_and_files(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [model.name for model in agileir_export.models.list_models() if model.name.startswith("agileir_tiny")]
    assert len(names) == 2
    for verb in ("onnx", "verify", "restore", "trt", "calibrate", "bundle"):
        offered = completed(monkeypatch, verb, "agileir_tiny")
        assert offered == [*(("plain", name) for name in names), ("file", "agileir_tiny")]
    assert completed(monkeypatch, "onnx", "./a") == [("file", "./a")]
    assert completed(monkeypatch, "trt", "a.onnx", "--profile", "") == [("plain", name) for name in PRESETS]
    assert ("plain", "--ground-truth") in completed(monkeypatch, "verify", "--gr")


def test_the_names_are_kept(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = completion._preset_names()
    monkeypatch.setattr(agileir_export.models, "list_models", lambda: pytest.fail("asked again"))
    assert completion._preset_names() == first and len(first) > 30


def test_a_cache_that_cannot_be_written_to_is_no_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recwarn: Any
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "file"))
    assert "semanir_s_x2" in completion._preset_names() and not recwarn.list


INTERRUPTED = """
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
wanted = sys.argv.pop()

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from agileir_export.__main__ import run
sys.argv.append("models")
run()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("module", ["click", "agileir_export.cli", "agileir_export.commands.trt"])
def test_ctrl_c_while_the_command_line_is_loaded(module: str) -> None:
    result = subprocess.run([sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True)
    assert (result.returncode, result.stderr, result.stdout) == (-signal.SIGINT, "", "")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_afterwards_is_answered() -> None:
    result = subprocess.run([sys.executable, "-c", INTERRUPTED, "torch"], capture_output=True, text=True)
    assert result.returncode == 130 and result.stderr == "Interrupted; no file was left half-written.\n"
