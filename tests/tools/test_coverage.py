"""The table of what works of spandrel's networks: made from what was measured, and not worse today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..scripts import load_script

pytest.importorskip("spandrel")

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "benchmarks" / "results" / "coverage.json"
AGAIN = ("Compact", "HAT", "SPAN")
"""Quick ones: plain convolutions, window attention, convolutions that are joined."""

TOOL = load_script(ROOT / "tools" / "coverage.py")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def test_the_page_is_what_was_measured(recorded: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8") == TOOL.table(recorded)


def test_every_architecture_was_tried(recorded: dict[str, Any]) -> None:
    spandrel = pytest.importorskip("spandrel")
    known = {entry.architecture.id for entry in spandrel.MAIN_REGISTRY}
    assert known <= set(recorded["networks"])


def test_what_does_not_work_has_its_reason(recorded: dict[str, Any]) -> None:
    for name, record in recorded["networks"].items():
        floors = {precision: TOOL.works(record, precision) for precision in ("float32", "float16", "bfloat16")}
        for precision, held in floors.items():
            said = record.get("error") or record.get(f"{precision}_error") or record.get(precision) is not None
            assert held or said, (name, precision)
        assert record.get("engine") or record.get("engine_error") or record.get("error"), name


def test_a_table_of_a_network_that_works_and_one_that_does_not() -> None:
    good = {
        "loads": True, "scale": 4, "parameters": 1_500_000, "sizes": "free", "operators": {"ShiftedWindowAttention": 4},
        "float32": 131.24, "float16": 69.0, "float16_kept": 3, "bfloat16": 44.9, "bfloat16_kept": 0, "engine": True,
        "engine_precision": "float16", "engine_seconds": 3.4, "export_seconds": 12.0,
    }  # fmt: skip
    bad = {"loads": False, "error": "unsupported: x takes a mask.\nNo."}
    page = TOOL.table(
        {"networks": {"A": good, "b": bad, "A@published": good}, "gpu": "sm89", "date": "d", "versions": {}}
    )
    assert (
        "Of 2 architectures 1 load, 1 hold 100 dB in float32, 1 hold 60 dB in float16, 0 hold 45 dB in bfloat16" in page
    )
    assert page.count("| A | x4 | 1.50 M | free | 4 | 131.2 | 69.0 (3) | **44.9** (0) | 3 s | 12 s |") == 2
    assert "- **b**, does not work: unsupported: x takes a mask. No." in page


@pytest.mark.slow
@pytest.mark.parametrize("name", AGAIN)
def test_it_is_not_worse_than_it_was(name: str, recorded: dict[str, Any]) -> None:
    before, now = recorded["networks"][name], TOOL.one_apart(name, real=False)
    assert "error" not in now, now
    assert now["sizes"] == before["sizes"] and now["operators"] == before["operators"]
    for precision in ("float32", "float16", "bfloat16"):
        assert TOOL.works(now, precision) >= TOOL.works(before, precision), (precision, now, before)
    assert now["engine"] >= before["engine"], now
