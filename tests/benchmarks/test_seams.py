"""Cuts of benchmarks/seams.py: exact overlaps on the grid, and the same half a multiple off it; one measurement."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ..scripts import load_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "seams.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_cuts(bench: ModuleType, overlap: int) -> None:
    picture, plan = bench.two_by_two(np.zeros((1, 3, 150, 129), np.float32), overlap, 16)
    assert picture.shape[2:] == (plan.rows.length, plan.columns.length)
    for cuts in (plan.rows, plan.columns):
        assert cuts.overlap == overlap and cuts.tile % 16 == cuts.origins[1] % 16 == 0
        off = bench.off_the_grid(cuts, 16)
        assert off.origins == (0, cuts.origins[1] - 8)
        assert off.origins[1] + off.tile == cuts.length
        assert off.overlap == overlap + 16


@pytest.mark.slow
def test_off_the_grid_no_overlap_helps(bench: ModuleType) -> None:
    _, row = bench.measure("agileir_tiny_x2", [0, 16])["rows"]
    assert row["seams"] > 66 > 55 > row["seams_off_the_grid"]


def test_the_chart_is_that_of_the_results(bench: ModuleType) -> None:
    """The committed picture shows the committed figures."""
    results = json.loads(max((SCRIPT.parent / "results").glob("seams_*.json")).read_text())
    drawn = bench.chart(results)
    assert drawn == (SCRIPT.parents[1] / "docs" / "images" / "seams.svg").read_text()
    assert drawn.count("(chosen)") == len(results["models"]) == 4
