"""TensorRT-RTX and plugins that it does not take: it sees none of TensorRT's, and refuses quick ones in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agileir_export.engines.building.parser_library import parser_environment
from agileir_export.engines.targets import TARGETS

from ..export import networks
from .lean_tensorrt import NEWEST, answer, make_or_skip


def outcome(kind: str, tmp_path: Path, folder: Path) -> dict[str, Any]:
    """What the parser and the builder do with a file of ours whose operators are registered as one kind of plugin."""
    pytest.importorskip("tensorrt_rtx_libs", reason="TensorRT-RTX is not installed")
    environment = make_or_skip(NEWEST).variables()
    found = parser_environment(TARGETS["rtx"], tmp_path)
    assert found is not None
    environment["LD_LIBRARY_PATH"] += f":{found['LD_LIBRARY_PATH']}"
    model = networks.exported(folder, "swinir-light", static=(16, 16)).path
    return answer("rtx_plugins.py", kind, str(model), environment=environment)


def test_plugins_registered_with_tensorrt_are_not_seen(tmp_path: Path, folder: Path) -> None:
    """Both products in one process: TensorRT-RTX builds from the function bodies."""
    pytest.importorskip("triton", reason="plugins are registered only where their kernels can be compiled")
    told = outcome("tensorrt", tmp_path, folder)
    assert told["parsed"], told["errors"]
    assert told["plugin_layers"] == 0
    assert told["plan_bytes"] > 0


def test_quick_plugins_are_refused_in_words(tmp_path: Path, folder: Path) -> None:
    told = outcome("quick", tmp_path, folder)
    assert not told["parsed"]
    assert "creator" in " ".join(told["errors"]).lower(), told["errors"]
