"""Something that is no plan, given to the real runtimes on a machine without a GPU: an error, and no crash."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from .lean_tensorrt import VERSIONS, answer, make_or_skip


def refusal(folder: Path, module: str, target: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    plan = folder / "no.plan"
    plan.write_bytes(b"this is no plan " * 100)
    told: dict[str, Any] = answer("refused_plan.py", module, target, str(plan), environment=environment)
    assert str(plan) in told["what"]
    return told


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_without_a_driver(version: str, tmp_path: Path) -> None:
    """Its runtime object is empty then, and would end the process when used or destroyed."""
    lean = make_or_skip(version)
    told = refusal(tmp_path, "tensorrt", "tensorrt", lean.variables())
    assert told["type"] == "EnvironmentProblem"
    assert "driver" in told["what"]
    assert version in told["why"]


def test_rtx(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed")
    told = refusal(tmp_path, "tensorrt_rtx_bindings", "rtx")
    assert told["type"] == "InputError"
    assert "no plan of TensorRT-RTX, or a damaged one" in told["what"]
