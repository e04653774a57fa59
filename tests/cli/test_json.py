"""docs/json.md against what the verbs print: the same names, strict JSON, errors of one form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agileir_export import errors

from ..engines import sidecars
from ..export import networks
from .command import KIND, document, run

TEXT = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
ROWS = {
    row[0].strip().replace("`", ""): row[1]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| verb")
    for row in [line.strip("| ").split(" | ", 1)]
}


def names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def printed(*arguments: object) -> Any:
    """The document of a verb, which is strict JSON."""
    result = run(*arguments, "--json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(result.stdout, parse_constant=refuse)
    return document(result)


VERBS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnx", "{swinir}", "-o", "a.onnx", "--size", "8x8"),
    "verify": ("verify", "{onnx}", "--reference", "{swinir}", "--size", "8x8"),
    "calibrate": ("calibrate", "{onnx}", "-o", "c.onnx", "--quick", "--min-psnr", "0"),
    "trt --dry-run": ("trt", "{onnx}", "--target", "rtx", "-o", "a.plan", "--dry-run"),
    "restore": ("restore", "{onnx}", "{picture}", "-o", "a.png"),
    "bundle": ("bundle", "{onnx}", "-o", "b", "--no-verify"),
    "polygraphy": ("polygraphy", "{onnx}", "--rtx"),
    "cache list": ("cache", "list"),
    "models": ("models",),
    "models --spandrel": ("models", "--spandrel"),
    "info of a file": ("info", "{onnx}"),
    "info of a model": ("info", "agileir_tiny_x2"),
    "info of a checkpoint": ("info", "{swinir}"),
    "doctor": ("doctor",),
    "an error": ("info", "none"),
}


ELSEWHERE = ("trt", "serve (when it is ready)", "serve --check")
"""Those that need a plan, or a server: below, and in tests/serving."""


@pytest.mark.parametrize("verb", VERBS)
def test_the_names_of_a_document(verb: str, files: dict[str, Path], own_cache: Path) -> None:
    told = printed(*(argument.format_map(files) for argument in VERBS[verb]))
    wanted = names(ROWS[verb].replace("(unless `--no-verify`)", ""))
    found = set(told[0] if isinstance(told, list) else told)
    if verb == "an error":
        wanted = {"error"}
    assert found == wanted


def test_the_names_of_an_engine(tmp_path: Path) -> None:
    engine = sidecars.describe(tmp_path / "a.plan", networks.shared(KIND).spec, b"plan")
    assert {"path", *engine.to_json()} == names(ROWS["trt"])


def test_every_verb_is_in_the_table() -> None:
    from agileir_export.cli import main

    assert {verb.split()[0] for verb in (*VERBS, *ELSEWHERE)} >= set(main.commands)
    assert set(ROWS) == {*VERBS, *ELSEWHERE}


def test_the_names_within(files: dict[str, Path]) -> None:
    prose = " ".join(TEXT.split())
    report = printed("verify", files["onnx"], "--reference", files["swinir"], "--size", "8x8", "--blocks", "--time")[
        "reports"
    ][0]
    assert set(report) == names(re.search(r"A report .*? has (.*?)\. A rung", prose)[1])  # type: ignore[index]
    assert set(report["rungs"][0]) == names(re.search(r"A rung has (.*?)\. Each", prose)[1])  # type: ignore[index]
    picture = printed("restore", files["onnx"], files["picture"], "-o", "a.png")["files"][0]
    assert set(picture) == names(re.search(r"Each of `files` has (.*?);", prose)[1])  # type: ignore[index]


def test_every_code_of_an_error_is_told() -> None:
    kinds = {each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    told = re.search(r"`code` is stable: (.*?) Where", " ".join(TEXT.split()))
    assert told is not None
    assert set(re.findall(r"`([\w.-]+)`", told[1])) == kinds | {"usage", "environment.device-memory"}
