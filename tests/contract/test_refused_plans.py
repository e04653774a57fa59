"""Something that is no plan, given to the real runtimes on a machine without a GPU: an error, and no crash."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agileir_export

from .lean_tensorrt import VERSIONS, make_or_skip

PROGRAM = Path(__file__).with_name("refused_plan.py")


def refusal(folder: Path, module: str, target: str, environment: dict[str, str]) -> dict[str, Any]:
    plan = folder / "no.plan"
    plan.write_bytes(b"this is no plan " * 100)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), module, target, str(plan)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    assert str(plan) in answer["what"]
    return answer


def package() -> str:
    return str(Path(agileir_export.__file__).parents[1])


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_without_a_driver(version: str, tmp_path: Path) -> None:
    """Its runtime object is empty then, and would end the process when used or destroyed."""
    lean = make_or_skip(version)
    answer = refusal(tmp_path, "tensorrt", "tensorrt", lean.variables(package()))
    assert answer["type"] == "EnvironmentProblem"
    assert "driver" in answer["what"]
    assert version in answer["why"]


def test_rtx(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed")
    search = os.pathsep.join(filter(None, (package(), os.environ.get("PYTHONPATH"))))
    answer = refusal(tmp_path, "tensorrt_rtx_bindings", "rtx", {**os.environ, "PYTHONPATH": search})
    assert answer["type"] == "InputError"
    assert "no plan of TensorRT-RTX, or a damaged one" in answer["what"]
