"""The table of what the kernels take, and that the page which shows it is complete."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from agileir_export.plugins.catalogue import CALLS

from ..scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(ROOT / "tools" / "kernel_table.py")


def test_the_page_has_a_row_for_every_kernel_and_none_spills(script: ModuleType) -> None:
    lines = (ROOT / "docs" / "plugins.md").read_text().splitlines()
    first = lines.index(script.line(script.HEADER))
    rows = []
    for text in lines[first + 2 :]:
        if not text.startswith("|"):
            break
        rows.append([cell.strip() for cell in text.strip("|").split("|")])
    assert [row[:3] for row in rows] == [
        [call.operator, call.label, dtype] for call in CALLS for dtype in script.DTYPES
    ]
    for row in rows:
        assert all(cell.isdecimal() for cell in row[3:]), row
        assert int(row[4]) <= 48 * 1024


def test_a_row_is_made_from_the_compiled_kernel(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton")
    assert script.main(["--labels", "SwinIR light", "--dtypes", "float16"]) == 0
    header, rule, row = capsys.readouterr().out.splitlines()
    assert header == script.line(script.HEADER) and set(rule) == set("|- ")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["shifted_window_attention", "SwinIR light", "float16", "128"]
    assert all(16 <= int(cell) <= 255 for cell in cells[5:])


def test_spilled_bytes_are_shown(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "compile_call", lambda *_: script.CompiledKernel("k", "", 1024, 64))
    monkeypatch.setattr(script, "assemble", lambda *_: script.Resources(registers=255, spilled=12, shared=0))
    assert script.row(CALLS[0], "float16", 1, "ptxas")[3:6] == ["64", "1024", "255 (+12 B)"]


def test_without_an_assembler_the_script_says_so(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> str:
        raise script.EnvironmentProblem("ptxas was not found")

    monkeypatch.setattr(script, "find_ptxas", missing)
    assert script.main([]) == 4
    assert "ptxas was not found" in capsys.readouterr().err
