"""What of the GPU benchmarks can be tested without a GPU: options, statistics, JSON, and the formulations compared."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from agileir_export.plugins.calls import CALLS, Call
from agileir_export.plugins.cost import Cost

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
NAMES = ("measuring", "formulations", "operators", "models")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The scripts as modules, under the names they have when they are run, and only for one test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        del sys.modules[name]


def test_sizes_are_written_width_first(scripts: SimpleNamespace) -> None:
    assert scripts.measuring.size("640x360") == (360, 640)
    for wrong in ("640", "640x", "ax3", "0x5", "-1x4"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a size"):
            scripts.measuring.size(wrong)


def test_options_have_the_documented_defaults(scripts: SimpleNamespace) -> None:
    options = scripts.operators.parse([])
    assert (64, 64) in options.sizes and (720, 1280) in options.sizes
    assert options.dtypes == ["float16"] and options.device == "cuda" and options.budget < 300
    options = scripts.models.parse(["--sizes", "80x40", "--dtypes", "bfloat16"])
    assert options.sizes == [(40, 80)] and options.dtypes == ["bfloat16"]
    assert scripts.models.parse([]).dtypes == ["float32", "float16", "bfloat16"]


def test_summary_by_hand(scripts: SimpleNamespace) -> None:
    found = scripts.measuring.summary([5.0, 1.0, 2.0, 4.0, 3.0])
    assert found == {
        "median_ms": 3.0,
        "quartiles_ms": [2.0, 4.0],
        "minimum_ms": 1.0,
        "maximum_ms": 5.0,
        "repetitions": 5,
    }


@pytest.mark.parametrize(("seconds", "expected"), [(10.0, 5), (0.04, 10), (0.0, 200)])
def test_repetitions_fill_a_slice_of_time(scripts: SimpleNamespace, seconds: float, expected: int) -> None:
    assert scripts.measuring.repetitions(seconds) == expected


def test_what_cannot_be_measured_says_why(scripts: SimpleNamespace) -> None:
    def broken() -> None:
        raise ValueError("first line\nsecond line")

    def exhausted() -> None:
        raise torch.cuda.OutOfMemoryError("full")

    later = time.monotonic() + 60
    attempt = scripts.measuring.attempt
    assert attempt(broken, "cpu", later) == {"failed": "ValueError: first line"}
    assert attempt(exhausted, "cpu", later) == {"skipped": "out of memory"}
    assert attempt(broken, "cpu", time.monotonic() - 1) == {"skipped": "time budget"}
    assert attempt(lambda: None, "cpu", later)["repetitions"] == 3


def test_rates_are_work_by_time(scripts: SimpleNamespace) -> None:
    work = Cost(bytes_read=3 * 10**9, bytes_written=10**9, flops=8 * 10**12)
    found = scripts.operators.rates({"median_ms": 2.0}, work)
    assert found == {"median_ms": 2.0, "tb_per_s": pytest.approx(2.0), "tflop_per_s": pytest.approx(4000.0)}
    assert scripts.operators.rates({"skipped": "out of memory"}, work) == {"skipped": "out of memory"}


def test_comparison_of_models_by_hand(scripts: SimpleNamespace) -> None:
    compared = scripts.models.compared
    stock, fused = {"median_ms": 6.0, "peak_bytes": 400}, {"median_ms": 2.0, "peak_bytes": 100}
    assert compared(stock, fused) == {"speedup": 3.0, "memory_ratio": 0.25}
    assert compared({"skipped": "out of memory"}, fused) == {}


def small(call: Call) -> Call:
    """The call with windows of 4 and few channels."""
    attributes = dict(call.attributes) | {"window_size": 4, "shift_size": 3}
    if "num_heads" in attributes:
        attributes["num_heads"] = 2
    if "top_k" in attributes:
        # Unshifted: the plain formulation fills up with tokens of other regions by another rule, without effect.
        attributes |= {"top_k": 5, "shift_size": 0}
    return Call(call.label, call.operator, attributes, 12, (3, 4, 3))


@pytest.mark.parametrize("operator", sorted({call.operator for call in CALLS}))
def test_all_formulations_compute_the_same(scripts: SimpleNamespace, operator: str) -> None:
    formulations: ModuleType = scripts.formulations
    call = small(next(call for call in CALLS if call.operator == operator))
    tensors = formulations.inputs(call, 8, 12, torch.float32, "cpu")
    expected = formulations.operator(call, tensors)()
    others = [formulations.eager(call), formulations.sdpa(call)]
    assert (others[1] is None) == (operator == "key_semantic_dictionary")
    for function in filter(None, others):
        ((name, value),) = formulations.difference(call, function(*tensors), expected).items()
        assert value == 1 if name == "overlap" else value < 1e-5


def test_difference_sees_what_differs(scripts: SimpleNamespace) -> None:
    attention = small(next(call for call in CALLS if call.operator == "shifted_window_attention"))
    one = torch.ones(4)
    assert scripts.formulations.difference(attention, 1.5 * one, one) == {"relative_error": pytest.approx(0.5)}
    dictionary = small(next(call for call in CALLS if call.operator == "key_semantic_dictionary"))
    ours, theirs = torch.tensor([[[0b0011]]]), torch.tensor([[[0b1001]]])
    assert scripts.formulations.difference(dictionary, ours, theirs) == {"overlap": 0.5}


def test_operators_run_and_write_json(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = sys.modules["agileir_export.plugins.calls"]
    monkeypatch.setattr(calls, "CALLS", tuple(small(call) for call in CALLS if call.label in ("SwinIR", "AgileIR")))
    out = tmp_path / "new" / "operators.json"
    given = ["--device", "cpu", "--sizes", "10x6", "--dtypes", "float32", "--out", str(out)]
    assert scripts.operators.main([*given, "--variants", "operator", "eager", "sdpa"]) == 0
    document = json.loads(out.read_text())
    assert document["benchmark"] == "operators" and document["torch"] == torch.__version__
    assert [row["operator"] for row in document["rows"]] == [
        "group_shifted_window_attention",
        "shifted_window_attention",
    ]
    for row in document["rows"]:
        assert row["picture"] == [6, 10] and row["padded"] == [8, 12]
        assert set(row["variants"]) == {"operator", "eager", "sdpa"}
        assert all(found["median_ms"] > 0 and found["tb_per_s"] > 0 for found in row["variants"].values())
        assert row["relative_error"] < 1e-5
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_models_run_and_write_json(scripts: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "models.json"
    given = ["--device", "cpu", "--sizes", "16x8", "--dtypes", "float32", "--out", str(out)]
    assert scripts.models.main([*given, "--presets", "semanir_tiny_dn25"]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["preset"] == "semanir_tiny_dn25" and row["picture"] == [8, 16]
    assert row["variants"]["stock"]["median_ms"] > 0 and row["speedup"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["operators", "models"])
def test_without_a_gpu_the_scripts_say_so(
    scripts: SimpleNamespace, script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none.json"
    assert getattr(scripts, script).main(["--out", str(out)]) == 4
    assert "no CUDA device" in capsys.readouterr().err and not out.exists()
