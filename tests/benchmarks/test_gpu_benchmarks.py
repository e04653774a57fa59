"""What of the GPU benchmarks can be tested without a GPU: options, statistics, JSON, and the formulations compared."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS
from agileir_export.plugins.cost import Cost

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
NAMES = ("measuring", "record", "formulations", "operators", "models")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The scripts as modules, under the names they have when they are run, and only for one test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        del sys.modules[name]


def raising(error: Exception) -> Callable[..., Any]:
    def broken(*arguments: Any) -> Any:
        raise error

    return broken


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
    ends = {"minimum_ms": 1.0, "maximum_ms": 5.0}
    assert found == {"median_ms": 3.0, "quartiles_ms": [2.0, 4.0], **ends, "repetitions": 5}


@pytest.mark.parametrize(("seconds", "expected"), [(10.0, 5), (0.04, 10), (0.0, 200)])
def test_repetitions_fill_a_slice_of_time(scripts: SimpleNamespace, seconds: float, expected: int) -> None:
    assert scripts.measuring.repetitions(seconds) == expected


def test_what_cannot_be_measured_says_why(scripts: SimpleNamespace) -> None:
    broken, exhausted = raising(ValueError("first line\nsecond line")), raising(torch.cuda.OutOfMemoryError("full"))
    later = time.monotonic() + 60
    attempt = scripts.measuring.attempt
    assert attempt(broken, "cpu", later) == {"failed": "ValueError: first line"}
    assert attempt(exhausted, "cpu", later) == {"skipped": "out of memory"}
    assert attempt(broken, "cpu", time.monotonic() - 1) == {"skipped": "time budget"}
    assert attempt(lambda: None, "cpu", later)["repetitions"] == 3


class Event:
    """Stands for a CUDA event: the clock is the number of calls so far, in milliseconds."""

    calls = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.time = Event.calls

    def elapsed_time(self, last: Event) -> float:
        return float(last.time - self.time)


def test_a_measurement_on_cuda(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stand-ins: every event pair holds one call; the peak is that of one call, without what was there before."""
    peak = 0

    def function() -> None:
        nonlocal peak
        Event.calls += 1
        peak = max(peak, 1000 + 30)
        time.sleep(0.01)

    def forget() -> None:
        nonlocal peak
        peak = 0

    for name, stand_in in {
        "Event": Event,
        "synchronize": lambda: None,
        "memory_allocated": lambda: 1000,
        "max_memory_allocated": lambda: peak,
        "reset_peak_memory_stats": forget,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    found = scripts.measuring.measure(function, "cuda")
    assert found["median_ms"] == found["minimum_ms"] == found["maximum_ms"] == 1
    assert found["peak_bytes"] == 30
    assert 5 <= found["repetitions"] <= 40


def test_a_gpu_that_answers_no_more_is_told_from_a_failure(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = raising(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(scripts.measuring.ContextLost, match="illegal memory access"):
        scripts.measuring.attempt(broken, "cuda", time.monotonic() + 60)


def test_a_new_process_goes_on_with_the_file(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, command: started.append(command))
    monkeypatch.setattr(os, "closerange", lambda first, last: None)
    monkeypatch.setattr(sys, "argv", ["operators.py", "--budget", "100", "--out", "x.json"])
    scripts.measuring.start_again(time.monotonic() - 1)
    (command,) = started
    options = scripts.operators.parse(command[2:])
    assert command[:2] == [sys.executable, "operators.py"]
    assert options.resume and options.budget == 0 and options.out == Path("x.json")


def test_without_triton_nothing_is_measured(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators would run as plain functions, and be measured as what they are compared with."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "Triton is not installed" in scripts.measuring.no_gpu("cuda")


# ---- the record ----


ROW = {"preset": "p", "dtype": "float16", "picture": [6, 10]}
TIME = {"median_ms": 2.0, "peak_bytes": 3 * 2**20}


@pytest.fixture
def open_record(scripts: SimpleNamespace, tmp_path: Path) -> Callable[..., Any]:
    return lambda resume=False: scripts.record.Record(tmp_path / "r.json", {"benchmark": "b"}, "cpu", resume)


@pytest.fixture
def record(open_record: Callable[..., Any]) -> Any:
    return open_record()


def test_the_file_says_what_is_being_measured(scripts: SimpleNamespace, record: Any) -> None:
    row = record.row(**ROW)
    seen = []

    def measurement() -> dict[str, Any]:
        seen.append(json.loads(record.path.read_text())["rows"][0]["variants"])
        return TIME

    assert record.measure(row, "one", measurement)
    assert seen == [{"one": {"failed": scripts.record.UNFINISHED}}]
    assert json.loads(record.path.read_text())["rows"] == [{**ROW, "variants": {"one": TIME}}]


def test_a_later_run_does_what_is_missing_or_was_skipped(open_record: Callable[..., Any]) -> None:
    first = open_record()
    row = first.row(**ROW)
    outcomes = {"timed": TIME, "late": {"skipped": "time budget"}, "bad": {"failed": "ValueError: no"}}
    for name, found in outcomes.items():
        first.measure(row, name, lambda found=found: found)
    later = open_record(resume=True)
    row = later.row(**ROW | {"picture": (6, 10)})
    asked: list[str] = []
    for name in (*outcomes, "new"):
        later.measure(row, name, lambda name=name: asked.append(name) or TIME)
    assert asked == ["late", "new"] and len(later.document["rows"]) == 1
    assert later.finish() == 1 and later.complaints == ["p float16 10x6: bad failed: ValueError: no"]


def test_a_lost_gpu_is_in_the_file(scripts: SimpleNamespace, record: Any) -> None:
    lost = scripts.measuring.ContextLost
    with pytest.raises(lost):
        record.measure(record.row(**ROW), "one", raising(lost("illegal address")))
    assert json.loads(record.path.read_text())["rows"][0]["variants"] == {"one": {"failed": "illegal address"}}


@pytest.mark.parametrize(("error", "code"), [(0.01, 0), (0.03, 1), (float("nan"), 1)])
def test_a_wrong_result_is_a_failure(record: Any, error: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    row = record.row(**ROW)
    record.compare(row, 0.02, lambda: {"relative_error": error})
    assert row["relative_error"] == (error if error == error else None)
    assert record.finish() == code
    assert ("WRONG" in capsys.readouterr().err) == bool(code)


def test_a_comparison_that_does_not_fit_costs_nothing_else(record: Any) -> None:
    record.compare(record.row(**ROW), 1, raising(torch.cuda.OutOfMemoryError("full")))
    assert record.finish() == 0
    record.compare(record.row(**ROW), 1, raising(ValueError("shapes differ")))
    assert record.complaints == ["p float16 10x6: the comparison failed: ValueError: shapes differ"]


# ---- the benchmarks ----


def test_limits_by_hand(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(multi_processor_count=2, clock_rate=1000)  # kHz
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(scripts.measuring, "attempt", lambda function, device, deadline: {"median_ms": 2.0})
    units = {"exponentials_per_s": 2 * 16e6, "integers_per_s": 2 * 64e6}
    measured = {"tb_per_s": pytest.approx(2**32 / 2e9), "tflop_per_s": pytest.approx(8192**3 / 1e9)}
    assert scripts.measuring.limits("cuda") == units | measured
    monkeypatch.setattr(scripts.measuring, "attempt", lambda function, device, deadline: {"skipped": "out of memory"})
    assert scripts.measuring.limits("cuda") == units
    assert scripts.measuring.limits("cpu") == {}


def test_the_floor_is_of_the_slowest_unit(scripts: SimpleNamespace) -> None:
    limits = {"tb_per_s": 1.0, "tflop_per_s": 1.0, "exponentials_per_s": 1e9, "integers_per_s": 1e9}
    work = {"bytes_read": 10**9, "bytes_written": 0, "flops": 10**9}
    assert scripts.operators.floor(Cost(**work), limits) == pytest.approx(1.0)
    assert scripts.operators.floor(Cost(**work, exponentials=10**7), limits) == pytest.approx(10.0)
    assert scripts.operators.floor(Cost(**work), {"tb_per_s": 1.0}) is None


def test_which_variants_there_are(scripts: SimpleNamespace) -> None:
    pytest.importorskip("triton", reason="the tactics are those of the kernels")
    dictionary, group = call_of("key_semantic_dictionary"), call_of("group_shifted_window_attention")
    existing = scripts.operators.existing
    assert existing(dictionary, "cuda") == {"operator", "eager", "compiled", "tactic2"}
    assert existing(group, "cuda") == {"operator", "eager", "sdpa", "compiled", "tactic2"}
    assert existing(group, "cpu") == {"operator", "eager", "sdpa", "compiled"}
    assert set.union(*(existing(call, "cuda") for call in CALLS)) == set(scripts.operators.VARIANTS)


def test_rates_are_work_by_time(scripts: SimpleNamespace) -> None:
    work = Cost(bytes_read=3 * 10**9, bytes_written=10**9, flops=8 * 10**12)
    rates = scripts.operators.rates
    expected = {"median_ms": 2.0, "tb_per_s": pytest.approx(2.0), "tflop_per_s": pytest.approx(4000.0)}
    assert rates({"median_ms": 2.0}, work, None) == expected
    assert rates({"median_ms": 2.0}, work, 0.5) == expected | {"times_floor": 4.0}
    assert rates({"skipped": "out of memory"}, work, 0.5) == {"skipped": "out of memory"}


def test_comparison_of_models_by_hand(scripts: SimpleNamespace) -> None:
    compared = scripts.models.compared
    stock, blocks = {"median_ms": 6.0, "peak_bytes": 400}, {"median_ms": 2.0, "peak_bytes": 100}
    assert compared({"stock": stock, "blocks": blocks}) == {"speedup": 3.0, "memory_ratio": 0.25}
    assert compared({"stock": {"skipped": "out of memory"}, "blocks": blocks}) == {}
    compiled = {"median_ms": 3.0, "peak_bytes": 200}
    assert compared({"stock_compiled": compiled, "blocks": blocks}) == {
        "speedup_over_compiled": 1.5,
        "memory_ratio_over_compiled": 0.5,
    }


def call_of(operator: str) -> Call:
    return next(call for call in CALLS if call.operator == operator)


def small(call: Call) -> Call:
    """The call with windows of 4 and few channels."""
    attributes = dict(call.attributes) | {"window_size": 4}
    if "shift_size" in attributes:
        attributes["shift_size"] = 3
    if "num_heads" in attributes:
        attributes["num_heads"] = 2
    if "top_k" in attributes:
        # Unshifted: the plain formulation fills up with tokens of other regions by another rule, without effect.
        attributes |= {"top_k": 5, "shift_size": 0}
    return replace(call, attributes=attributes, channels=12)


@pytest.mark.parametrize("operator", sorted({call.operator for call in CALLS}))
def test_all_formulations_compute_the_same(scripts: SimpleNamespace, operator: str) -> None:
    formulations: ModuleType = scripts.formulations
    call = small(call_of(operator))
    tensors = formulations.inputs(call, 8, 12, torch.float32, "cpu")
    expected = formulations.operator(call, tensors)()
    others = [formulations.eager(call), formulations.sdpa(call)]
    assert (others[1] is None) == (operator == "key_semantic_dictionary")
    for function in filter(None, others):
        ((name, value),) = formulations.difference(call, function(*tensors), expected).items()
        assert value == 1 if name == "overlap" else value < 1e-5


def test_difference_sees_what_differs(scripts: SimpleNamespace) -> None:
    attention, dictionary = small(call_of("shifted_window_attention")), small(call_of("key_semantic_dictionary"))
    one = torch.ones(4)
    assert scripts.formulations.difference(attention, 1.5 * one, one) == {"relative_error": pytest.approx(0.5)}
    ours, theirs = torch.tensor([[[0b0011]]]), torch.tensor([[[0b1001]]])
    assert scripts.formulations.difference(dictionary, ours, theirs) == {"overlap": 0.5}


@pytest.fixture
def measured(scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Measures the small calls of some presets; the exit code and the file."""

    def run(*labels: str) -> tuple[int, Any]:
        calls = sys.modules["agileir_export.plugins.catalogue"]
        monkeypatch.setattr(calls, "CALLS", tuple(small(call) for call in CALLS if call.label in labels))
        out = tmp_path / "new" / "operators.json"
        given = ["--device", "cpu", "--sizes", "10x6", "--dtypes", "float32", "--out", str(out)]
        code = scripts.operators.main([*given, "--variants", "operator", "eager", "sdpa"])
        return code, json.loads(out.read_text())

    return run


def test_operators_run_and_write_json(measured: Callable[..., Any], tmp_path: Path) -> None:
    code, document = measured("SwinIR", "AgileIR")
    assert code == 0
    assert document["benchmark"] == "operators" and document["torch"] == torch.__version__
    operators = ["group_shifted_window_attention", "shifted_window_attention"]
    assert [row["operator"] for row in document["rows"]] == operators
    for row in document["rows"]:
        assert row["picture"] == [6, 10] and row["padded"] == [8, 12]
        assert set(row["variants"]) == {"operator", "eager", "sdpa"}
        assert all(found["median_ms"] > 0 and found["tb_per_s"] > 0 for found in row["variants"].values())
        assert row["relative_error"] < 1e-5
    assert not list(tmp_path.rglob("*.part"))


def test_what_an_operator_fails_at_does_not_stop_the_others(
    scripts: SimpleNamespace,
    measured: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = raising(RuntimeError("no kernel image"))
    monkeypatch.setattr(scripts.formulations, "operator", lambda *arguments: broken)
    code, document = measured("SwinIR")
    assert code == 1
    (row,) = document["rows"]
    assert row["variants"]["operator"] == {"failed": "RuntimeError: no kernel image"}
    assert row["variants"]["eager"]["median_ms"] > 0 and row["variants"]["sdpa"]["median_ms"] > 0
    assert "operator failed: RuntimeError: no kernel image" in capsys.readouterr().err


def test_no_model_is_built_when_the_time_is_over(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts.models, "built", lambda *arguments: pytest.fail("a model was built"))
    out = tmp_path / "models.json"
    assert scripts.models.main(["--device", "cpu", "--budget", "-1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 24
    assert all(found == {"skipped": "time budget"} for row in rows for found in row["variants"].values())


@pytest.mark.slow
def test_models_run_and_write_json(scripts: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "models.json"
    given = ["--device", "cpu", "--sizes", "16x8", "--dtypes", "float32", "--out", str(out)]
    assert scripts.models.main([*given, "--presets", "semanir_tiny_dn25"]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["preset"] == "semanir_tiny_dn25" and row["picture"] == [8, 16]
    assert set(row["variants"]) == {"stock", "attention", "blocks"}  # a CPU captures no graph
    assert row["variants"]["stock"]["median_ms"] > 0 and row["speedup"] > 0
    assert row["relative_error"] < 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["operators", "models"])
def test_without_a_gpu_the_scripts_say_so(
    scripts: SimpleNamespace, script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none.json"
    assert getattr(scripts, script).main(["--out", str(out)]) == 4
    assert "no CUDA device" in capsys.readouterr().err and not out.exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("given", "said"), [([], "Usage: measure_all.sh"), (["kernel"], "no such part: kernel")])
def test_the_script_for_all_of_it_says_what_it_takes(given: list[str], said: str, tmp_path: Path) -> None:
    command = ["bash", str(FOLDER / "measure_all.sh"), *([str(tmp_path / "out"), *given] if given else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and said in done.stdout + done.stderr
