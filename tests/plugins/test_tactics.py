"""Tactics by size: small images start as many programs as a large GPU has multiprocessors; none that lost is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS
from agileir_export.plugins.launch import Launch, filling

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from agileir_export.plugins.dispatch import kernel_module, plan_filling

MULTIPROCESSORS = 132
"""Of an H100."""

TILE = 64
"""Side of a small image, in pixels; rounded up to whole windows."""

CASCADE = "group_shifted_window_attention"
"""Its groups follow each other in every window, so that a window is one program."""

WIDE_IN_FLOAT32 = "SemanIR tiny"
"""Preset whose heads leave float32 registers for one kind of block only."""

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "gpu_candidates_2026-11-27.json"

BLOCKS = {
    "shifted_window_attention": ("queries", "keys", "num_warps"),
    "key_semantic_attention": ("queries", "keys", "num_warps"),
    "key_semantic_dictionary": ("rows", "columns", "num_warps", "num_stages"),
}
"""What the numbers of a tactic are called in the results; one head a program, and one stage where none is named."""

CLOSE = 1.1
"""A tactic within a tenth of the fastest at some size may be the fastest at another."""

SPILLED = 16
"""Bytes a thread that a candidate may have spilled under the Triton 3.6 of that machine."""


def launches(call: Call, dtype: str, side: int) -> list[Launch]:
    """All tactics of a call."""
    module = kernel_module(call.operator)
    shapes = call.shapes(1, side, side)
    return [module.launch(shapes, call.attributes, dtype, tactic + 1) for tactic in range(len(module.TACTICS))]


def side_of(call: Call) -> int:
    return -(-TILE // call.attributes["window_size"]) * call.attributes["window_size"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.operator}-{call.label}".replace(" ", "_"))
def test_a_small_tile_gives_every_multiprocessor_a_program(call: Call, dtype: str) -> None:
    side = side_of(call)
    chosen = filling(launches(call, dtype, side), 1, side, side, MULTIPROCESSORS)
    programs = chosen.grid(1, side, side)
    if call.operator == CASCADE:
        assert programs == (side // call.attributes["window_size"]) ** 2 < MULTIPROCESSORS
        assert chosen.num_warps == max(launch.num_warps for launch in launches(call, dtype, side))
    elif (call.label, dtype) == (WIDE_IN_FLOAT32, "float32") and "num_heads" in call.attributes:
        assert programs == (side // call.attributes["window_size"]) ** 2 * 4
    else:
        assert programs >= MULTIPROCESSORS


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.operator}-{call.label}".replace(" ", "_"))
def test_a_large_image_takes_the_first_tactic(call: Call) -> None:
    side = 8 * side_of(call)
    tactics = launches(call, "float16", side)
    assert filling(tactics, 1, side, side, MULTIPROCESSORS) is tactics[0]


def test_the_first_tactic_that_fills_the_machine_is_taken_else_the_most_warps() -> None:
    large, small, smaller = (Launch(None, {}, 8, programs, warps) for programs, warps in ((1, 4), (2, 4), (4, 2)))
    tactics = [large, small, smaller]
    assert filling(tactics, 1, 16, 16, 4) is large
    assert filling(tactics, 1, 16, 16, 5) is small
    assert filling(tactics, 1, 16, 16, 9) is smaller
    assert filling(tactics, 1, 16, 16, 17) is small  # eight programs of four warps, or sixteen of two: the first


def test_tensors_are_planned_for_by_their_size() -> None:
    call = next(call for call in CALLS if call.operator == "key_semantic_dictionary" and call.label == "SemanIR")
    x = torch.empty(call.shapes(1, 64, 64)[0], dtype=torch.float16, device="meta")
    first, second = launches(call, "float16", 64)
    assert first.grid(1, 64, 64) < MULTIPROCESSORS <= second.grid(1, 64, 64)
    assert plan_filling(call.operator, [x], call.attributes, MULTIPROCESSORS) == second
    assert plan_filling(call.operator, [x], call.attributes, 108) == first


def test_no_tactic_is_kept_that_lost_at_every_size() -> None:
    rows: list[dict[str, Any]] = json.loads(MEASURED.read_text())["rows"]
    rows = [row for row in rows if row["spills"] <= SPILLED and row.get("several", 1) == 1]
    seen = 0
    for operator, names in BLOCKS.items():
        of_operator = [row for row in rows if row["operator"] == operator]
        best: dict[tuple[Any, ...], float] = {}
        for row in of_operator:
            row["where"] = (row["preset"], *row["size"])
            best[row["where"]] = min(best.get(row["where"], math.inf), row["ms"])
        for tactic in kernel_module(operator).TACTICS:
            wanted = dict(zip(names, tactic, strict=True))
            wanted.setdefault("num_stages", 1)
            times = [row for row in of_operator if wanted.items() <= row.items()]
            seen += bool(times)
            assert not times or any(row["ms"] <= CLOSE * best[row["where"]] for row in times), tactic
    assert seen >= 5
