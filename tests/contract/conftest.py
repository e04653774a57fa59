"""Real bindings of TensorRT and TensorRT-RTX, in processes of their own, over a driver that records."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from . import recording_driver
from .lean_tensorrt import EARLY, VERSIONS, answer, make_or_skip

RTX = "rtx"

Run = Callable[..., list[dict[str, Any]]]

SLOW = pytest.mark.slow
BINDINGS = [RTX, *(pytest.param(each, marks=SLOW) for each in (*VERSIONS, EARLY))]


@pytest.fixture(params=BINDINGS)
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(which: str, tmp_path: Path) -> Run:
    """Has `python_plugins` follow orders, in a process with the bindings and the recording driver."""
    recording = recording_driver.make_or_skip(tmp_path)

    def run(
        *orders: dict[str, Any], every_tactic: bool = False, capabilities: Sequence[int] = (86, 89), **more: str
    ) -> Any:
        if which == RTX:
            if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
                pytest.skip("TensorRT-RTX is not installed")
            environment = {**os.environ, **recording}
            module = "tensorrt_rtx_bindings"
        else:
            environment = make_or_skip(which).variables()
            environment |= recording | {"LD_LIBRARY_PATH": f"{tmp_path}:{environment['LD_LIBRARY_PATH']}"}
            module = "tensorrt"
        given = {"orders": orders, "capabilities": list(capabilities), "every_tactic": every_tactic}
        (tmp_path / "orders.json").write_text(json.dumps(given), encoding="utf-8")
        told = answer("python_plugins.py", module, str(tmp_path / "orders.json"), environment=environment | more)
        assert which in (RTX, told["version"])
        return told["answers"]

    return run
