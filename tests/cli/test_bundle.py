"""The verb ``bundle``."""

from __future__ import annotations

import json
from pathlib import Path

from .command import PRESET, SIZES, document, run, written


def test_a_verified_file_becomes_a_bundle(trial: Path) -> None:
    result = run("bundle", trial, "-o", "out", *SIZES, "--json")
    assert result.exit_code == 0, result.stderr
    assert document(result)["triton"] == [PRESET, f"{PRESET}_onnx"]
    assert written() == ["out"]
    assert json.loads(Path("out/parity.json").read_text())["passed"] is True
    assert Path("out/parity.html").read_text().lower().startswith("<!doctype html>")
    assert "parity.html" not in result.stderr, "where it was made is gone"
    again = run("bundle", trial, "-o", "out", *SIZES, "--overwrite", "--html", "page.html")
    assert again.exit_code == 0 and "Wrote page.html" in again.stderr
    assert Path("page.html").read_bytes() == Path("out/parity.html").read_bytes()


def test_a_model_is_exported_into_its_bundle() -> None:
    result = run("bundle", PRESET, "--random-weights", 3, "-o", "out", "--no-verify", "--name", "mine")
    assert result.exit_code == 0, result.stderr
    assert Path(f"out/onnx/{PRESET}.onnx").is_file()
    assert "restores nothing" in Path("out/README.md").read_text()
    assert "Not measured" in Path("out/README.md").read_text()


def test_what_is_refused(trial: Path) -> None:
    result = run("bundle", trial, "-o", "out", *SIZES, "--min-psnr", 300)
    assert result.exit_code == 1, "a missed rung makes no bundle"
    result = run("bundle", trial, "-o", "out", "--no-verify", "--engine", "none.plan")
    assert result.exit_code == 2 and "does not exist" in result.stderr
    result = run("bundle", trial, "-o", "out", "--no-verify", *SIZES)
    assert result.exit_code == 2 and "--no-verify" in result.stderr
    assert run("onnx", PRESET, "--random-weights", 3, "--static", "8x8", "-o", "one.onnx", "--no-verify").exit_code == 0
    for given in ((), ("--no-verify",)):
        result = run("bundle", "one.onnx", "-o", "out", "--max-batch", 8, *given)
        assert result.exit_code == 2 and "exported for 1x8x8 only: --max-batch has nothing" in result.stderr
    assert run("bundle", "one.onnx", "-o", "one", "--no-verify").exit_code == 0
    Path("out").mkdir()
    result = run("bundle", trial, "-o", "out", "--no-verify")
    assert result.exit_code == 2 and "exists already" in result.stderr
    assert list(Path("out").iterdir()) == []
