"""The benchmark of large photographs: what it measures of a small one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from ..scripts import load_script


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(Path(__file__).parents[2] / "benchmarks" / "photographs.py")


@pytest.mark.slow
def test_a_budget_is_kept(bench: ModuleType, tmp_path: Path) -> None:
    budget = 3 * bench.GIB // 4
    found = bench.measure("agileir_tiny_x2", 0.3, tmp_path, "onnxruntime", budget)
    assert (found["rows"], found["columns"], found["output"]) == (474, 632, ".jpg")
    assert 0 < found["peak_bytes"] <= budget == found["budget_bytes"]
    assert "overlap" in found["tiles"] and found["processor_seconds"] > 1
    line = bench.table([found]).splitlines()[-1]
    assert line.startswith("| `agileir_tiny_x2` | 632x474 | 0.75 GiB | 0.") and found["tiles"] in line
