"""Tiles on the command line: restored, verified, told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agileir_export.images.files import Image, read_image, write_image
from agileir_export.restore import MemoryPlan

from ..export import networks
from .command import document, run


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and as little to measure as does."""
    from agileir_export.restore import seams

    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seams, "ENOUGH", 0.0)
    monkeypatch.setattr(seams, "ACROSS", 32)
    write_image("in.png", Image(networks.images(1, 3, 40, 50)[0]))


def test_restore_in_tiles(files: dict[str, Path]) -> None:
    assert run("restore", files["onnx"], "in.png", "-o", "whole.png", "--tile", "off").exit_code == 0
    result = run("restore", files["onnx"], "in.png", "-o", "tiles.png", "--tile", "32x28", "--overlap", 9)
    assert result.exit_code == 0
    assert "6 tiles of 28x28, overlap 12" in result.stderr or "tiles of" in result.stderr
    whole, tiles = (read_image(name).pixels for name in ("whole.png", "tiles.png"))
    assert whole.shape == tiles.shape == (3, 80, 100)
    assert 0 < np.abs(whole - tiles).mean() < 0.02


def test_seams_are_measured_and_told(files: dict[str, Path]) -> None:
    assert "seam_psnr" not in document(run("info", files["onnx"], "--json"))
    result = run("restore", files["onnx"], "in.png", "-o", "a.png", "--tile", 24, "--seam-psnr", 1)
    assert result.exit_code == 0
    assert "Tiles overlap by 4 pixels: seams of " in result.stderr
    told = document(run("info", files["onnx"], "--json"))["seam_psnr"]
    assert list(told) == ["4"] and told["4"] > 7
    assert "seam_psnr.4" in run("info", files["onnx"]).stdout


def test_seams_that_cannot_be_are_warned_of(files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.png", "-o", "a.png", "--tile", 24, "--seam-psnr", 300)
    assert result.exit_code == 0
    assert "warning: Tiles of 24x24 pixels overlap by 4: seams are" in result.stderr
    assert "300 dB were asked for" in result.stderr


@pytest.mark.parametrize("tile", ["0", "-5", "axb", "8x", "on"])
def test_no_tile(tile: str, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.png", "-o", "a.png", "--tile", tile)
    assert result.exit_code == 2
    assert not Path("a.png").exists()


def test_verify_tiles(trial: Path) -> None:
    options = ("--images", "in.png", "--size", "40x48", "--tiles", "--json", "--html", "page.html")
    told = document(run("verify", trial, *options))
    *_, rung = told["reports"][0]["rungs"]
    assert rung["name"] == "tiles = whole picture, at the seams"
    assert rung["floor"] == 60
    (measure,) = rung["measures"]
    assert (measure["height"], measure["width"]) == (40, 48)
    assert measure["psnr"] > 10 and rung["note"] == "9 tiles of 16x20, overlap 4"
    page = Path("page.html").read_text()
    assert "Seams of tiles" in page and "seams blue" in page and "9 tiles of 16x20" in page


def test_verify_with_a_tile(trial: Path) -> None:
    options = ("--images", "in.png", "--size", "40x48")
    shown = run("verify", trial, *options, "--tiles", "--tile", 28).stdout
    assert "tiles = whole picture" in shown
    for wrong, message in (
        (("--tile", 28), "--tile is the size of --tiles"),
        (("--tiles", "--tile", "off"), "--tile is the size of --tiles"),
        (("--tiles", "--tile", 64), "No picture is larger than a tile"),
    ):
        result = run("verify", trial, *options, *wrong)
        assert result.exit_code == 2
        assert message in result.stderr


def test_memory_chooses_the_tile(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def planned(runner: object, budget: int, **_: object) -> MemoryPlan:
        asked.append(budget)
        # samples of the result, and what a PNG takes, which is more than the picture before it
        beside = 80 * 100 * 3 + max(40 * 50 * 12, 80 * 100 * 3 * 2)
        return MemoryPlan(0.0, 1.0, multiple=4, room=beside + 1000)

    monkeypatch.setattr("agileir_export.restore.tiled_runner.memory_plan", planned)
    result = run("restore", files["onnx"], "in.png", "-o", "a.png", "--memory", "2KiB", "--overlap", 4)
    assert result.exit_code == 0
    assert asked == [2048]
    assert "tiles of" in result.stderr
    assert read_image("a.png").pixels.shape == (3, 80, 100)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--memory", "much"), "is not an amount of memory"), (("--memory", "1GiB", "--tile", "off"), "has chosen one")],
)
def test_no_budget(options: tuple[str, ...], said: str, files: dict[str, Path]) -> None:
    result = run("restore", files["onnx"], "in.png", "-o", "a.png", *options)
    assert result.exit_code == 2
    assert said in result.stderr
