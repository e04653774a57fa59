"""The documents: prose as wide as the code, and what a page tells a reader to type, typed here in its order."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from agileir_export.images import Image, sample_images, write_image
from agileir_export.images.files import read_image

from .cli.command import run
from .export import networks
from .restore.clips import clip
from .scripts import load_script
from .small_samples import cut_samples, use_samples

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
WIDTH = 120
SLOW_PAGES = {"README.md", "onnx.md", "precision.md", "spandrel.md", "tiles.md"}

NOT_HERE = {
    r"import tensorrt": "needs TensorRT; tests/contract registers the plugins",
    r"--target tensorrt|verify a\.plan|doctor": "needs a GPU, or tells of this machine",
    r"tritonclient|^agileir-export serve|--server": "needs a server; tests/serving starts one",
    r"--devices|--ray": "needs GPUs, or a cluster; tests/restore runs the processes on the CPU",
    r"explain a\.plan b\.plan": "two engines of the reader's",
    r"^(ffmpeg|vspipe)": "frames from a program that is not here",
    r"^eval": "for a shell that is somebody's",
    r"^(make|python|ray|\.venv|pip|docker|trtexec|export|polygraphy|sh|\./|--|tritonserver)": "not a command of ours",
}
"""What is not run, and why."""


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Lines of a page's shell blocks, without comments; lines that go on are joined."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    stripped = (re.sub(r"\s+#.*", "", line).strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def reason(text: str) -> str:
    """Why something is not run; empty if it is."""
    return next((why for pattern, why in NOT_HERE.items() if re.search(pattern, text)), "")


@pytest.fixture
def surroundings(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A folder with the files that the pages speak of; the packaged pictures are cut small."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "samples").mkdir()
    use_samples(monkeypatch, cut_samples(tmp_path / "samples"))
    torch.save(networks.shared("swinir-classical").state_dict(), "swinir_x4.pth")
    if importlib.util.find_spec("spandrel") is not None:
        tool = load_script(ROOT / "tools" / "spandrel_networks.py")
        for name, architecture in (("hat_x4", "HAT"), ("realesrgan_x4", "ESRGAN"), ("scunet", "SCUNet")):
            if f"{name}.pth" in page.read_text(encoding="utf-8"):
                torch.save(tool.make_state(architecture), f"{name}.pth")
    for name in ("model.onnx", "swinir.onnx", "float32.onnx"):
        shutil.copyfile(networks.exported(folder, "swinir-light").path, name)
    for place in ("photos", "inputs"):
        Path(place).mkdir()
        for name, path in sample_images():
            write_image(Path(place, f"{name}.png"), Image(read_image(path).pixels[:, 60:100, 60:108]))
    for name, path in sample_images()[:2]:  # ground truth, and what it is restored from
        for scale, place in ((1, "sharp"), (2, "x2"), (4, "x4")):
            Path(place).mkdir(exist_ok=True)
            write_image(Path(place, f"{name}.png"), Image(read_image(path).pixels[:, 60:100:scale, 60:108:scale]))
    clip(Path("clip.mp4"), seconds=0.5)
    for name in ("photo.png", "photo.jpg"):
        write_image(Path(name), Image(read_image(next(Path("photos").iterdir())).pixels))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python(page: Path, surroundings: None) -> None:
    for block in blocks(page, "python"):
        if not reason(block):
            exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW_PAGES else []) for page in PAGES],
)
def test_commands(page: Path, surroundings: None) -> None:
    for line in commands(page):
        if reason(line):
            continue
        name, *arguments = shlex.split(line)
        assert name == "agileir-export", f"{page.name} tells to run {line!r}"
        result = run(*arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_the_road_takes_ten_lines() -> None:
    first, *_ = blocks(ROOT / "docs" / "api.md", "python")
    assert len(first.split("\n\n", 1)[1].strip().splitlines()) <= 10


def prose(text: str) -> list[tuple[int, str]]:
    """(number, line) of what is neither code nor a table."""
    without_code = re.sub(r"^ *```.*?^ *```$", lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S)
    return [(n, line) for n, line in enumerate(without_code.split("\n"), 1) if not line.lstrip().startswith("|")]


def test_code_and_tables_are_no_prose() -> None:
    text = "one\n\n```sh\ncode\n```\n\n| table |\n\n- item\n\n  ```\n  code\n  ```\nlast"
    assert [(n, line) for n, line in prose(text) if line] == [(1, "one"), (9, "- item"), (14, "last")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_line_of_prose_is_longer_than_the_code(path: Path) -> None:
    long = {number: len(line) for number, line in prose(path.read_text(encoding="utf-8")) if len(line) > WIDTH}
    assert not long, f"{path.name}, wrap at {WIDTH}: {long}"
