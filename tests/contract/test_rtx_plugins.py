"""TensorRT-RTX and plugins: it takes those that creators of version three make, and refuses the quick ones in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..export import networks
from .lean_tensorrt import NEWEST, answer, make_or_skip


def outcome(kind: str, tmp_path: Path, folder: Path) -> dict[str, Any]:
    """What the parser and the builder do with a file of ours whose operators are registered as one kind of plugin."""
    libraries = pytest.importorskip("tensorrt_rtx_libs", reason="TensorRT-RTX is not installed")
    environment = make_or_skip(NEWEST).variables()
    (library,) = Path(next(iter(libraries.__path__))).glob("libtensorrt_rtx.so.1*")
    (tmp_path / "libtensorrt_rtx.so").symlink_to(library)
    environment["LD_LIBRARY_PATH"] += f":{tmp_path}"
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


def test_plugins_of_version_three_are_taken(tmp_path: Path, folder: Path) -> None:
    """Every block becomes a layer, and what a plugin serialises is in the plan."""
    told = outcome("python", tmp_path, folder)
    assert told["parsed"], told["errors"]
    assert told["plugin_layers"] > 1
    assert told["payloads"] >= told["plugin_layers"]
