"""Counts, ratios and table of benchmarks/build.py; a whole run in one slow test."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ..engines.rtx_builds import needs_rtx
from ..scripts import load_script, run_python

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "build.py"
LAYERS = """Layers:
Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: a, Datatype: Int64 }]
Name: __mye1, LayerType: shape_call, Inputs: [], Outputs: []
Name: conv, LayerType: correlation, Inputs: [ { Name: b, Datatype: Half }], Outputs: [ { Name: c, Datatype: Float }]
Name: conv2, LayerType: correlation, Inputs: [ { Name: c, Datatype: Half }], Outputs: [ { Name: d, Datatype: Half }]
Name: w, LayerType: wait, Inputs: [], Outputs: []
Name: g, LayerType: gemm, Inputs: [ { Name: d, Datatype: Float }], Outputs: [ { Name: e, Datatype: Float }]

Bindings:
input
"""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


def rows(bench: ModuleType) -> list[Any]:
    """The machine is half as fast in the last round."""
    ours = bench.Row("m", bench.OURS, nodes=37, seconds=[1.0, 1.0, 2.0], cpu_seconds=[1.0, 1.0, 1.0])
    plain = bench.Row("m", bench.PLAIN, nodes=99, seconds=[2.0, 2.0, 4.0], cpu_seconds=[4.0, 4.0, 4.0])
    for row, count in ((ours, 3), (plain, 4)):
        row.kinds = {"gemm Float": count, "wait -": 7, "shape_call -": 1}
        row.plan_bytes, row.network_layers = 2_500_000, 120
    return [ours, plain]


def test_kinds_are_read_off_the_log(bench: ModuleType) -> None:
    kinds = bench.kinds_of(LAYERS)
    once = ("ShapeHostToDevice Int64", "shape_call -", "wait -", "gemm Float")
    assert kinds == {"correlation Half": 2, **dict.fromkeys(once, 1)}
    assert bench.Row("m", bench.OURS, kinds=kinds).kernels == 3, "only what computes is a kernel"
    assert bench.kinds_of("") == {}


def test_ratios_are_taken_round_by_round(bench: ModuleType) -> None:
    given = rows(bench)
    first = "m: ours / plain: kernels 0.75, build time 0.50, CPU time 0.25"
    assert bench.ratios(given) == first
    written = bench.Row("m", bench.WRITTEN, problem="out of memory")
    assert bench.ratios([given[0], written, given[1]]) == f"{first}\nm: ours, as written: no comparison"
    given[1].problem = "out of memory"
    assert bench.ratios(given) == "m: ours: no comparison"


def test_the_table(bench: ModuleType) -> None:
    given = rows(bench)
    lines = bench.table(given).splitlines()
    assert lines[2] == "| m | ours | 3 | 1.0 | 1.0 | 120 | 2.5 | 37 |"
    given[1].problem = "no | parser"
    lines = bench.table(given).splitlines()
    assert lines[3].startswith("| m | plain | no / parser |")
    assert {line.count("|") for line in lines} == {9}, "every row has every cell"


def test_whole_numbers(bench: ModuleType) -> None:
    assert bench.natural("0") == 0
    for text in ("-1", "1.5", "many", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            bench.natural(text)


def test_a_child_that_fails_is_a_problem_and_no_traceback(bench: ModuleType, tmp_path: Path) -> None:
    facts = bench.apart("export", "no_such_model", bench.OURS, "1", "float32", str(tmp_path / "x.onnx"))
    assert list(facts) == ["problem"]
    assert "no_such_model" in facts["problem"]
    assert "\n" not in facts["problem"]


@pytest.mark.slow
@needs_rtx
def test_a_whole_run(tmp_path: Path) -> None:
    """Our file has fewer kernels than the plain export of the same network."""
    path = tmp_path / "results.json"
    answer = run_python(SCRIPT, "--presets", "agileir_tiny_x2", "--rounds", "1", "--json", path)
    ours, written, plain = json.loads(path.read_text())["results"]
    for row in (ours, written, plain):
        assert not row["problem"]
        assert len(row["seconds"]) == len(row["cpu_seconds"]) == 1
        assert row["plan_bytes"] > 100_000
    assert ours["nodes"] == written["nodes"] < plain["nodes"]
    assert 50 < ours["kernels"] < plain["kernels"]
    assert ours["network_layers"] < written["network_layers"] < plain["network_layers"]
    assert "| agileir_tiny_x2 | ours |" in answer.stdout
    assert "Traceback" not in answer.stderr
