"""Running the command line inside the test, and reading what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agileir_export.cli import main

VERBS = (
    "onnx",
    "verify",
    "restore",
    "calibrate",
    "trt",
    "cache",
    "bundle",
    "serve",
    "polygraphy",
    "models",
    "info",
    "doctor",
)
KIND, PRESET = "swinir-light", "swinir_trial_x2"
"""A tiny network, and the name it has as a preset while a test runs."""

SIZES = ("--size", "5x7", "--size", "8x12")


def run(*arguments: object) -> Result:
    """A verb in this process; stdout and stderr apart."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def document(result: Result) -> Any:
    """The one JSON document on stdout."""
    assert result.stdout.startswith(("{", "["))
    return json.loads(result.stdout)


def assert_refused(code: int, message: str, *arguments: object) -> Any:
    """A verb says nothing but an error, whose text matches, and leaves nothing; the same as JSON, which is returned."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    _, error = result.stderr.split("error: ")
    assert re.search(message, " ".join(error.split()))
    assert "Traceback" not in result.output
    told = document(again := run(*arguments, "--json"))["error"]
    assert again.exit_code == told["exit_code"] == code
    assert told["what"] in again.stderr
    assert written() == []
    return told


def written() -> list[str]:
    """Files of the current folder."""
    return sorted(path.name for path in Path.cwd().iterdir())
