"""What of the benchmark of engines with plugins can be tested at once: its table, and that it goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ..engines.rtx_builds import needs_rtx
from ..scripts import load_script

FAILS = 2
"""Number of the build that fails."""

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "rtx_plugins.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


def row(form: str, **more: Any) -> dict[str, Any]:
    told = {"model": "a", "precision": "float16", "form": form, "gpus": ["sm89"], "passed": True, "problems": []}
    return told | {"seconds": 9.0, "cpu_seconds": 2.0, "plan_bytes": 3_000_000, "plugins": 0, "texts": 0} | more


def test_the_table_has_both_forms_beside_each_other(bench: ModuleType) -> None:
    plugin = row("plugin", plugins=8, texts=2, cpu_seconds=1.26, plan_bytes=2_500_000)
    lines = bench.table([plugin, row("decomposed"), row("plugin", precision="float32")]).splitlines()
    assert lines[2] == "| a | float16 | 8 | 2 | 1.3 | 2.0 | 2.5 | 3.0 |"
    assert lines[3] == "| a | float32 | 0 | 0 | 2.0 |  | 3.0 |  |"


def test_what_was_built_is_not_built_again_and_what_failed_is(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    needs_rtx.args[0] and pytest.skip(needs_rtx.kwargs["reason"])
    asked: list[Any] = []

    def measure(name: str, wanted: Any, gpus: Any) -> Any:
        for precision, form in wanted:
            asked.append((name, precision, form))
            told = row(form, model=name, precision=precision)
            if len(asked) == FAILS:
                told = {key: told[key] for key in ("model", "precision", "form", "gpus")} | {"problem": "it failed"}
            yield told

    monkeypatch.setattr(bench, "measure", measure)
    given = ["--json", str(tmp_path / "a.json"), "--models", "a", "b", "--precisions", "float16", "--gpus", "sm89"]
    assert bench.main(given) == 1
    assert asked == [("a", "float16", "plugin"), ("b", "float16", "plugin")]
    assert bench.main(given) == 0
    assert asked[2:] == [("b", "float16", "plugin")]
    told = json.loads((tmp_path / "a.json").read_text())
    assert [each["model"] for each in told["results"]] == ["a", "b"]
    assert not any("problem" in each for each in told["results"])
    assert capsys.readouterr().out.count("| a | float16 |") == 2


def test_triton_finds_nothing_that_was_compiled_before(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "mine")
    with bench.empty_kernel_cache():
        place = os.environ["TRITON_CACHE_DIR"]
        assert place != "mine" and not list(Path(place).iterdir())
    assert os.environ["TRITON_CACHE_DIR"] == "mine"
    monkeypatch.delenv("TRITON_CACHE_DIR")
    with bench.empty_kernel_cache():
        assert os.environ["TRITON_CACHE_DIR"]
    assert "TRITON_CACHE_DIR" not in os.environ
