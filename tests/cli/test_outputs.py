"""What a verb writes never destroys what it reads, nor anything that is no regular file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agileir_export.cli import main
from agileir_export.commands.options import OutputType, Verb

from .command import document, run


def link(path: Path, kind: str) -> Path:
    """Another name of a file."""
    other = Path(f"other{path.suffix}")
    if kind == "hard":
        other.hardlink_to(path)
    elif kind == "symbolic":
        other.symlink_to(path)
    else:
        return path.parent / ".." / path.parent.name / path.name
    return other


DESTROYING = [
    ("verify", "{onnx}", "--reference", "{swinir}", "--html", "{page}", "--images", "{page}"),
    ("onnx", "{swinir}", "-o", "a.onnx", "--images", "{page}", "--html", "{page}"),
    ("calibrate", "{onnx}", "-o", "c.onnx", "--recipe", "{recipe}", "--save-recipe", "{recipe}"),
    ("calibrate", "{onnx}", "-o", "{onnx}"),
    ("calibrate", "{onnx}", "-o", "c.onnx", "--ground-truth", "{plot}", "--plot", "{plot}"),
    ("bundle", "{onnx}", "-o", "b", "--reference", "{swinir}", "--images", "{page}", "--html", "{page}"),
    ("trt", "{onnx}", "-o", "a.plan", "--keep-onnx", "{onnx}"),
    ("trt", "{onnx}", "-o", "{sidecar}.plan", "--int8", "--recipe", "{sidecar}.plan.json"),
    ("polygraphy", "{onnx}", "--trt", "-o", "{onnx}", "--overwrite"),
]


@pytest.mark.parametrize("kind", ["same", "hard", "symbolic"])
@pytest.mark.parametrize("arguments", DESTROYING, ids=[f"{a[0]}{i}" for i, a in enumerate(DESTROYING)])
def test_no_output_is_an_input(arguments: tuple[str, ...], kind: str, files: dict[str, Path]) -> None:
    given = {**files, "page": Path("p.html"), "recipe": Path("r.json"), "plot": Path("p.svg"), "sidecar": Path("s")}
    for path in ("p.html", "r.json", "p.svg", "s.plan.json"):
        Path(path).write_text("precious")
    contents = {path: path.read_bytes() for path in (*files.values(), *Path().iterdir()) if path.is_file()}
    spelt = [argument.format_map(given) for argument in arguments]
    if kind != "same" and "sidecar" not in "".join(arguments):  # the output by another name
        twice = next(word for word in spelt if spelt.count(word) > 1)
        place = max(index for index, word in enumerate(spelt) if word == twice)
        spelt[place] = str(link(Path(twice).absolute(), kind))
    result = run(*spelt, "--json")
    assert result.exit_code == 2, result.output
    assert "would replace what is read" in document(result)["error"]["what"]
    assert {path: path.read_bytes() for path in contents} == contents


def test_no_output_is_another(files: dict[str, Path]) -> None:
    for arguments in (
        ("trt", files["onnx"], "-o", "a.plan", "--timing-cache", "a.plan.json"),
        ("trt", files["onnx"], "-o", "a.onnx", "--keep-onnx", "./a.onnx"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and "are both" in result.stderr
    assert not Path("a.plan.json").exists() and not Path("a.onnx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "{onnx}", "--html", "page.png"),
        ("calibrate", "{onnx}", "-o", "c.onnx", "--plot", "x.png"),
        ("calibrate", "{onnx}", "-o", "c.onnx", "--save-recipe", "x.svg"),
        ("trt", "{onnx}", "-o", "c.plan", "--keep-onnx", "x.plan"),
    ],
    ids=" ".join,
)
def test_a_suffix_is_that_of_what_is_written(arguments: tuple[str, ...], files: dict[str, Path]) -> None:
    result = run(*(argument.format_map(files) for argument in arguments))
    assert result.exit_code == 2 and "does not end in ." in result.stderr


@pytest.mark.parametrize("kind", ["fifo", "socket", "link to a pipe", "/dev/null"])
def test_only_regular_files_are_replaced(kind: str, files: dict[str, Path]) -> None:
    page = Path("page.html")
    if kind == "fifo":
        os.mkfifo(page)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(page))
    elif kind == "link to a pipe":
        os.mkfifo("pipe")
        page.symlink_to("pipe")
    else:
        page.symlink_to(kind)
    before = page.stat().st_mode
    result = run("verify", files["onnx"], "--reference", files["swinir"], "--html", page)
    assert result.exit_code == 2 and "it is a device, a pipe or a socket" in result.stderr
    assert page.stat().st_mode == before


def test_a_link_is_followed_and_a_replaced_file_is_told(files: dict[str, Path]) -> None:
    Path("there").mkdir()
    target, name = Path("there", "model.onnx"), Path("a.onnx")
    target.write_bytes(b"old")
    name.symlink_to(target)
    result = run("onnx", files["swinir"], "-o", name, "--no-verify")
    assert result.exit_code == 0, result.output
    assert "a.onnx was there and has been replaced" in result.stderr
    assert name.is_symlink() and target.read_bytes() != b"old"
    assert sorted(path.name for path in Path("there").iterdir()) == ["model.onnx"]
    name.unlink()
    assert "has been replaced" not in run("onnx", files["swinir"], "-o", name, "--no-verify").stderr


def test_every_file_that_a_verb_writes_is_checked() -> None:
    """A path option of a verb is read, unless it is an `OutputType`; folders are what these two make."""
    folders = {("restore", "output"), ("bundle", "output")}
    outputs = {"output", "html", "plot", "save_recipe", "keep_onnx", "timing_cache", "log"}
    for name, command in main.commands.items():
        for parameter in command.params:
            if parameter.name in outputs and (name, parameter.name) not in folders:
                assert isinstance(parameter.type, OutputType), (name, parameter.name)
                assert isinstance(command, Verb)
