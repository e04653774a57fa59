"""Folders on the command line: trees, patterns, lists, what fails, what is resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..restore.small_folders import contents
from .command import document, run


@pytest.fixture
def tree(files: dict[str, Path]) -> list[str]:
    """photos/a.png, photos/deep/b.png and the broken photos/deep/c.png in the current folder."""
    Path("photos/deep").mkdir(parents=True)
    for name in ("photos/a.png", "photos/deep/b.png"):
        shutil.copyfile(files["picture"], name)
    Path("photos/deep/c.png").write_text("no picture", encoding="utf-8")
    return ["a.png", "deep/b.png"]


def test_a_tree_with_a_broken_picture(tree: list[str], files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "photos", "-o", "out", "--recursive", "--log", "log.jsonl")
    assert result.exit_code == 1
    assert "error: 1 of 3 pictures could not be restored" in result.stderr and "--resume" in result.stderr
    assert "Left out: Cannot read photos/deep/c.png" in result.stderr
    assert "photos/deep/c.png" in result.stdout and "no image" in result.stdout
    assert sorted(contents(Path("out"))) == tree
    states = [json.loads(line)["status"] for line in Path("log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(states) == ["done", "done", "failed"]
    told = document(again := run("restore", files["onnx"], "photos", "-o", "out", "--recursive", "--resume", "--json"))
    assert again.exit_code == 1
    assert told["runner"]["target"] == "onnxruntime" and told["files"] == []
    assert [(entry["output"], entry["reason"]) for entry in told["skipped"]] == [
        (str(Path("out", name)), "done before") for name in tree
    ]
    (failed,) = told["failed"]
    assert failed["source"] == str(Path("photos/deep/c.png"))
    assert (failed["error"]["code"], failed["error"]["exit_code"]) == ("input.image", 2)
    shutil.copyfile(files["picture"], "photos/deep/c.png")
    mended = run("restore", files["onnx"], "photos", "-o", "out", "--recursive", "--resume")
    assert mended.exit_code == 0
    assert "skipped: done before" in mended.stdout


def test_patterns_and_lists(tree: list[str], files: dict[str, Path]) -> None:
    assert run("restore", files["onnx"], "photos/**/[ab].png", "-o", "one", "-q").exit_code == 0
    Path("list.txt").write_text("photos/a.png\nphotos/deep/b.png\n", encoding="utf-8")
    assert run("restore", files["onnx"], "@list.txt", "-o", "two", "-q").exit_code == 0
    assert run("restore", files["onnx"], "@list.txt", "-o", "three", "--recursive", "-q").exit_code == 0
    assert [sorted(contents(Path(name))) for name in ("one", "two", "three")] == [
        tree,
        ["a.png", "b.png"],
        [f"photos/{name}" for name in tree],
    ]
    assert set(contents(Path("one")).values()) == set(contents(Path("three")).values())


def test_existing_files_are_skipped(tree: list[str], files: dict[str, Path]) -> None:
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"mine")
    arguments = ("restore", files["onnx"], "photos/a.png", "photos/deep/b.png", "-o", "out")
    assert run(*arguments).exit_code == 2
    result = run(*arguments, "--skip-existing")
    assert result.exit_code == 0 and "skipped: exists" in result.stdout
    assert Path("out/a.png").read_bytes() == b"mine"
    refused = run(*arguments, "--skip-existing", "--overwrite")
    assert refused.exit_code == 2 and "both replaced and skipped" in refused.stderr


@pytest.mark.parametrize(
    ("source", "devices", "code", "message"),
    [
        ("onnx", "0", 3, "run by ONNX Runtime on the CPU"),
        ("swinir", "all", 4, "There is no GPU to restore on"),
        ("swinir", "one", 2, "'one' names no GPUs"),
    ],
)
def test_devices_want_gpus(
    source: str, devices: str, code: int, message: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("restore", files[source], files["picture"], "-o", "a.png", "--devices", devices)
    assert result.exit_code == code
    assert message in result.stderr
    assert not Path("a.png").exists()


def test_a_cluster_is_not_told_devices(files: dict[str, Path]) -> None:
    result = run("restore", files["swinir"], files["picture"], "-o", "a.png", "--devices", "all", "--ray", "auto")
    assert result.exit_code == 2
    assert "knows its GPUs" in result.stderr
