"""Checkpoints on the command line: guesses and choices are said, the range can be told, the source is recorded."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.export import export_onnx, read_artifact
from agileir_export.images.files import read_image
from agileir_export.models import load_model

from ..export import networks
from .command import PRESET, document, run


@pytest.fixture
def network() -> Any:
    """Trained at the range 1, with a window that speaks of 255; saved as `w7.pth` under Lightning's prefix."""
    trained = networks.build("swinir-jpeg", img_range=1.0)
    torch.save({"state_dict": {f"model.{key}": value for key, value in trained.state_dict().items()}}, "w7.pth")
    return trained


def test_the_range_is_guessed_aloud_and_can_be_told(network: Any, files: dict[str, Path]) -> None:
    guessed = run("onnx", "w7.pth", "-o", "guessed.onnx", "--no-verify")
    assert guessed.exit_code == 0 and "0..255" in guessed.stderr and "--img-range" in guessed.stderr
    told = run("onnx", "w7.pth", "-o", "told.onnx", "--img-range", 1, "--no-verify")
    assert told.exit_code == 0 and "0..255" not in told.stderr
    image = networks.images(1, 1, 14, 7)
    with torch.no_grad():
        wanted = network(torch.from_numpy(image)).numpy()
    right, wrong = (OnnxRuntimeRunner(name).run(image) for name in ("told.onnx", "guessed.onnx"))
    np.testing.assert_allclose(right, wanted, atol=1e-5)  # float32
    assert np.abs(wrong - wanted).max() > 0.01
    artifact = read_artifact("told.onnx")
    assert (artifact.spec.img_range, artifact.provenance["img_range"]) == (1.0, 1.0)
    # the reference takes the range of the file; a file has its own
    assert run("verify", "told.onnx", "--reference", "w7.pth", "--size", "7x14").exit_code == 0
    again = run("verify", "told.onnx", "--img-range", 255)
    assert again.exit_code == 2 and "--img-range was decided at export" in again.stderr


def test_restore_takes_the_range(network: Any, files: dict[str, Path]) -> None:
    pixels = {}
    for value in (1, 255):
        assert run("restore", "w7.pth", files["picture"], "-o", f"{value}.png", "--img-range", value).exit_code == 0
        pixels[value] = read_image(Path(f"{value}.png")).pixels
    assert np.abs(pixels[1] - pixels[255]).max() > 0.01


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_range_that_is_none(value: str, network: Any) -> None:
    result = run("onnx", "w7.pth", "-o", "a.onnx", "--img-range", value)
    assert result.exit_code == 2 and "above 0" in result.stderr and not Path("a.onnx").exists()


def test_every_verb_that_takes_a_model_takes_a_range() -> None:
    for verb in ("onnx", "verify", "restore", "calibrate", "trt", "bundle"):
        assert "--img-range" in run(verb, "--help").output, verb


def test_info_lists_what_was_read_and_what_assumed(network: Any) -> None:
    told = document(run("info", "w7.pth", "--json"))
    assert (told["branch"], told["left_out"]) == ("state_dict.model", [])
    assert (told["read"]["window_size"], told["read"]["depths"]) == (7, [2])
    assert told["assumed"]["img_range"]["value"] == 255.0 and "JPEG" in told["assumed"]["img_range"]["why"]
    assert {"task", "mean", "shift_size"} <= told["assumed"].keys()
    shown = run("info", "w7.pth")
    for part in ("read.window_size", "assumed.img_range.why", "assumed.shift_size.value", "state_dict.model"):
        assert part in shown.stdout
    assert "0..255" in shown.stderr


def test_an_average_is_said(files: dict[str, Path]) -> None:
    state = torch.load(files["swinir"])
    torch.save({"model": {key: value * 0 for key, value in state.items()}, "model_ema": state}, "ema.pth")
    result = run("restore", "ema.pth", files["picture"], "-o", "ema.png")
    assert result.exit_code == 0
    assert "ema.pth: the averaged weights (EMA) in model_ema are taken; left out: model" in result.stderr
    assert run("restore", files["swinir"], files["picture"], "-o", "plain.png").exit_code == 0
    assert Path("ema.png").read_bytes() == Path("plain.png").read_bytes()
    assert "EMA" not in run("restore", "ema.pth", files["picture"], "-o", "q.png", "-q").stderr


def test_python_writes_what_the_command_line_writes(files: dict[str, Path]) -> None:
    sources: list[tuple[object, dict[str, Any], list[object]]] = [
        (files["swinir"], {}, []),
        (PRESET, {"weights": files["swinir"]}, ["--weights", files["swinir"]]),
        (PRESET, {"random_weights": 3}, ["--random-weights", 3]),
        (files["semanir"], {"top_k": 3}, ["--top-k", 3]),
        (files["swinir"], {"img_range": 2.0}, ["--img-range", 2]),
    ]
    for (source, keywords, arguments), number in zip(sources, itertools.count()):
        artifact = export_onnx(load_model(str(source), **keywords), f"python{number}.onnx")
        assert run("onnx", source, *arguments, "-o", f"cli{number}.onnx", "--no-verify").exit_code == 0
        assert Path(f"python{number}.onnx").read_bytes() == Path(f"cli{number}.onnx").read_bytes()
        assert artifact.provenance["model"] == Path(str(source)).name


def test_pixel_unshuffled_input_goes_the_whole_way() -> None:
    model = networks.build("swinir-real", unshuffle=4, scale=1)
    torch.save({"state_dict": model.state_dict()}, "diffbir.pth")
    result = run("onnx", "diffbir.pth", "-o", "a.onnx", "--size", "9x20", "--size", "33x16", "--json")
    assert result.exit_code == 0, result.stderr
    assert document(result)["artifact"]["spec"]["pad_multiple"] == 16
    assert [rung["name"] for rung in document(result)["parity"]["rungs"]][1:] == ["ONNX float32 = PyTorch"]


def test_what_is_saved_in_place_of_weights(files: dict[str, Path]) -> None:
    for content, part in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!doctype html><html></html>", "a web page"),
    ):
        Path("a.pth").write_bytes(content)
        result = run("onnx", "a.pth", "-o", "a.onnx")
        assert result.exit_code == 2 and part in result.stderr
