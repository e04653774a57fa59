"""Statistics, order and table of benchmarks/cpu_inference.py; the measuring itself in one slow test."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ..scripts import load_script, run_python

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cpu_inference.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


def rows(bench: ModuleType) -> list[Any]:
    """Torch eager doubles its time in the middle of the run, as on a busy machine; ours does too."""
    ours = bench.Row("m", bench.OURS, seconds=[0.5, 0.5, 1.0, 1.0, 1.0], peak=5 * bench.MIB, psnr=131.4)
    ours.export_seconds, ours.nodes, ours.inlined_nodes = 3.21, 37, 450
    return [
        bench.Row("m", bench.EAGER, seconds=[1.0, 1.0, 2.0, 2.0, 9.0], peak=20 * bench.MIB, psnr=float("inf")),
        bench.Row("m", bench.COMPILED, problem="RuntimeError: no compiler | at all"),
        ours,
    ]


def test_speed_is_the_median_of_the_ratios_of_rounds(bench: ModuleType) -> None:
    """Not the ratio of medians of other moments, and not moved by one bad round."""
    assert bench.speeds(rows(bench)) == {bench.EAGER: 1.0, bench.OURS: 2.0}


def test_without_torch_eager_there_is_no_speed(bench: ModuleType) -> None:
    given = rows(bench)
    given[0].problem = "out of memory"
    assert bench.speeds(given) == {}
    assert "| ours | 1000.0 |  | 5 |" in bench.table(given)


def test_the_table(bench: ModuleType) -> None:
    lines = bench.table(rows(bench)).splitlines()
    assert lines[2] == "| torch eager | 2000.0 | 1.00 | 20 |  |  |  |  |"
    assert lines[3].startswith("| torch.compile | RuntimeError: no compiler / at all |")
    assert lines[4] == "| ours | 1000.0 | 2.00 | 5 | 37 | 450 | 3.2 | 131 |"
    assert {line.count("|") for line in lines} == {9}, "every row has every cell"


def test_rounds_differ_in_their_order(bench: ModuleType) -> None:
    """Every variant is first, and last, about equally often; every round holds each once."""
    names = list(bench.VARIANTS)
    orders = [bench.rotated(names, number) for number in range(-1, 20)]
    assert all(sorted(order) == sorted(names) for order in orders)
    for place in (0, -1):
        counts = Counter(order[place] for order in orders[1:])
        assert set(counts) == set(names)
        assert max(counts.values()) == min(counts.values()) == 4
    followers = {pair for order in orders for pair in itertools.pairwise(order)}
    assert {(a, b) for a, b in followers if (b, a) in followers} == followers, "both directions occur"
    assert bench.rotated([], 3) == []


def test_psnr(bench: ModuleType) -> None:
    one = np.zeros((1, 3, 2, 2), np.float32)
    assert bench.psnr(one, one) == float("inf")
    assert bench.psnr(one + np.float32(0.1), one) == pytest.approx(20, abs=1e-4)
    assert not bench.psnr(one * np.nan, one) >= bench.AGREEMENT


def test_sizes_and_whole_numbers(bench: ModuleType) -> None:
    assert [bench.size(text) for text in ("64", "48x64", "1x1")] == [(64, 64), (48, 64), (1, 1)]
    assert bench.natural("15") == 15
    sizes, numbers = ("", "0", "4x0", "x", "4x", "-4", "4x4x4", "large"), ("0", "-1", "1.5", "many", "")
    for read, texts in ((bench.size, sizes), (bench.natural, numbers)):
        for text in texts:
            with pytest.raises(argparse.ArgumentTypeError):
                read(text)


def test_reasons_are_one_line(bench: ModuleType) -> None:
    assert bench.reason(ValueError("first\n  second")) == "ValueError: first second"
    assert bench.reason(ValueError()) == "ValueError: "
    assert len(bench.reason(ValueError("x" * 1000))) == 400


def test_memory_of_a_call(bench: ModuleType) -> None:
    """The peak inside of the call counts, also where nothing of it is left."""

    def call() -> int:
        return len(np.ones(64 * bench.MIB, np.uint8))

    result, peak = bench.peak_of(call)
    assert result == 64 * bench.MIB
    assert 60 * bench.MIB <= peak < 100 * bench.MIB
    if sys.platform == "linux":
        assert bench.peak_of(lambda: None)[1] < 8 * bench.MIB, "an earlier peak must not count"


def test_surroundings(bench: ModuleType) -> None:
    facts = json.loads(json.dumps(bench.surroundings([*bench.PACKAGES, "of-nobody"])))
    assert facts["versions"]["onnxruntime"][0].isdigit()
    assert facts["versions"]["of-nobody"] == "not installed"
    assert facts["date"].endswith("+00:00")


def test_errors_in_child_processes_come_back_as_texts(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # the child finds the module there
    worker = bench.Worker(bench.serve, bench.Job("no_such_model", 8, 8, 1), bench.EAGER, "")
    try:
        assert "no_such_model" in worker.answer()
        assert "process ended" in worker.ask()
    finally:
        worker.stop()


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    answer = run_python(SCRIPT, "--models", "agileir_tiny_x2", "--size", "5x9", "--rounds", "2", "--json", path)
    facts = json.loads(path.read_text())
    assert len(facts["results"]) == 5
    assert all(bool(row["problem"]) != (len(row["seconds"]) == 2) for row in facts["results"])
    (ours,) = [row for row in facts["results"] if row["variant"] == "ours"]
    assert not ours["problem"]
    assert ours["psnr"] >= 100
    assert ours["speed"] > 0
    assert "| ours |" in answer.stdout
    assert "Traceback" not in answer.stderr
