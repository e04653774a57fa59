"""``verify --blocks``: what half precision costs each block."""

from __future__ import annotations

from pathlib import Path

from agileir_export.export import read_artifact

from .command import document, run

ONE_SIZE = ("--size", "5x7")


def test_blocks_are_shown_after_the_ladder(trial: Path) -> None:
    result = run("verify", trial, *ONE_SIZE, "--blocks")
    assert result.exit_code == 0
    assert "float16 in the blocks" in result.output and "after the last block" in result.output
    for block in read_artifact(trial).blocks:
        assert block in result.output
    assert "float16 in the blocks" not in run("verify", trial, *ONE_SIZE).output


def test_blocks_as_json(trial: Path) -> None:
    found = document(run("verify", trial, *ONE_SIZE, "--blocks", "--json"))
    (report,) = found["reports"]
    assert report["blocks"]["precision"] == "float16" and report["blocks"]["first_bad"] is None
    assert report["blocks"]["blocks"][0]["rounding"]["overflows"] == 0


def test_an_engine_has_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"plan")
    result = run("verify", tmp_path / "a.engine", "--blocks")
    assert result.exit_code == 2 and "--blocks looks into ONNX files" in result.output
