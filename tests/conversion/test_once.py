"""On the way to a result every file is read once, parsed once and written once, and nothing lies about meanwhile."""

from __future__ import annotations

import importlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from agileir_export.models import FAMILIES

from ..cli.command import PRESET, run, written
from ..engines.builds import offer_tensorrt
from ..small_samples import cut_samples

PARSERS = ("conversion.prepared", "engines.building.builder", "engines.building.child", "export.artifact")
"""Where the one function that parses ONNX files has a name."""


class Log:
    """What this process did to files.

    Attributes:
        opened: Files opened for writing, by folder.
        put: Files renamed into their places, by their names there.
        parsed: ONNX files parsed.
        temporary: Prefixes of temporary files and folders.
    """

    def __init__(self) -> None:
        self.opened: Counter[Path] = Counter()
        self.put: Counter[str] = Counter()
        self.parsed: list[Any] = []
        self.temporary: list[Any] = []


@pytest.fixture
def log(files: dict[str, Path], tmp_path: Path, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Listens; the cache lies elsewhere, and what is put into it is not counted."""
    log, cache = Log(), tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(cache))
    samples = cut_samples(files["samples"])
    monkeypatch.setattr("agileir_export.calib.material.sample_images", lambda: samples)

    def watch(owner: Any, name: str, note: Any) -> None:
        real = getattr(owner, name)

        def watched(*arguments: Any, **keywords: Any) -> Any:
            note(*arguments, **keywords)
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, watched)

    def opened(path: Path, mode: str = "r", *_: Any, **__: Any) -> None:
        if {*mode} & {*"wxa+"} and cache not in path.parents:
            log.opened[path.absolute().parent] += 1

    def put(path: Path, target: Path) -> None:
        if cache not in Path(target).parents:
            log.put[Path(target).name] += 1

    watch(Path, "open", opened)
    for name in ("rename", "replace"):
        watch(Path, name, put)
    for name in ("mkdtemp", "mkstemp"):
        watch(tempfile, name, lambda suffix=None, prefix=None, *_, **__: log.temporary.append(prefix))
    for module in PARSERS:
        home = importlib.import_module(f"agileir_export.{module}")
        watch(home, "parse_onnx", lambda data, path: log.parsed.append(path))
    for name in ("load", "load_model"):
        watch(onnx, name, lambda source, *_, **__: log.parsed.append(source))
    return log


def assert_once(log: Log, parsed: int, temporary: tuple[str, ...] = ()) -> None:
    """Every file of the current folder was written once, by a rename, and nothing else was."""
    results = written()
    assert log.put == Counter(results)
    assert log.opened[Path.cwd()] == len(results)
    assert all("agileir-build-" in folder.name for folder in log.opened.keys() - {Path.cwd()})
    assert len(log.parsed) == parsed
    assert tuple(log.temporary) == temporary


@pytest.mark.parametrize("precision", [(), ("--fp16",)], ids=["float32", "float16"])
def test_an_export(precision: tuple[str, ...], log: Log) -> None:
    result = run(
        "onnx", PRESET, "--random-weights", 1, *precision, "--size", "8x12", "--html", "a.html", "-o", "a.onnx"
    )
    assert result.exit_code == 0, result.output
    assert written() == ["a.html", "a.onnx"]
    assert_once(log, parsed=0)


def test_a_calibration_and_its_recipe(files: dict[str, Path], log: Log) -> None:
    results = ("-o", "a.onnx", "--save-recipe", "r.json", "--plot", "p.svg")
    result = run("calibrate", files["onnx"], "--crops", 1, "--quick", *results)
    assert result.exit_code == 0, result.output
    assert written() == ["a.onnx", "p.svg", "r.json"]
    assert_once(log, parsed=1)


def test_a_calibration_of_a_model(log: Log) -> None:
    result = run("calibrate", PRESET, "--random-weights", 1, "--crops", 1, "--quick", "-o", "a.onnx")
    assert result.exit_code == 0, result.output
    assert_once(log, parsed=0)


def test_an_engine_of_a_model(log: Log, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built by the stand-in of TensorRT; again, from what the cache keeps of the model."""
    offer_tensorrt(tmp_path_factory.mktemp("modules") / "here", monkeypatch)
    presets: Any = FAMILIES["swinir"].presets
    monkeypatch.setitem(presets, "sound", presets[PRESET])  # the stand-in refuses others
    asked = ("trt", "sound", "--random-weights", 1, "--target", "tensorrt", "--static", "8x8", "--fp16")
    for *more, parsed in (("--keep-onnx", "a.onnx", "-o", "a.plan", 0), ("-o", "b.plan", 1)):
        result = run(*asked, "--attention", "decomposed", *more)
        assert result.exit_code == 0, result.output
        assert_once(log, parsed, temporary=("agileir-build-",))
    assert written() == ["a.onnx", "a.plan", "a.plan.json", "b.plan", "b.plan.json"]
