"""Pictures in tiles: as good as whole, whatever the runner takes, and the overlap measured and kept."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.cache import Cache
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.engines.artifact import EngineArtifact
from agileir_export.engines.profiles import Profile
from agileir_export.engines.torch_runner import TorchRunner
from agileir_export.errors import EnvironmentProblem, InputError
from agileir_export.export import export_onnx
from agileir_export.images.files import read_image, sample_images, write_image
from agileir_export.images.picture import to_channels
from agileir_export.images.resizing import pad_to_multiple, pad_to_size
from agileir_export.models import ModelSpec
from agileir_export.parity.metrics import psnr
from agileir_export.restore import MemoryPlan, PlannedRoom, TiledRunner, restore_pictures, seams
from agileir_export.restore.seams import SeamTable, SeamWarning, known_seams, measure_seams, seam_psnr, seam_table
from agileir_export.restore.tiles import TilePlan, cut, plan_tiles
from agileir_export.restore.tiling import restored_parts, run_in_tiles

from ..export import networks


class Blurring:
    """Enlarges, and mixes neighbours within a reach, of pictures that are mirrored at the end as networks' are."""

    def __init__(self, reach: int = 3, multiple: int = 4, scale: int = 2, sizes: Any = None) -> None:
        self.spec = ModelSpec("swinir", "custom", "super-resolution", scale, 3, window_size=4, pad_multiple=multiple)
        self.reach, self.shapes = reach, []  # type: int, list[tuple[int, ...]]
        self.digest: str | None = None
        if sizes is not None:
            self.artifact = engine(self.spec, sizes)

    def run(self, images: Any) -> Any:
        assert images.flags.c_contiguous
        padded, _ = pad_to_multiple(images, self.spec.pad_multiple)
        self.shapes.append(padded.shape)
        if hasattr(self, "artifact"):
            shape = (1, *padded.shape[2:])  # more images go through one by one
            assert any(shape in profile for profile in self.artifact.profiles), shape
        mixed = sum(np.roll(padded, (a, b), (2, 3)) for a in (0, self.reach) for b in (0, -self.reach)) / 4
        scale = self.spec.scale
        whole = mixed.repeat(scale, 2).repeat(scale, 3).astype(np.float32)
        return whole[..., : images.shape[2] * scale, : images.shape[3] * scale]

    def describe(self) -> dict[str, Any]:
        return {"target": "blurring"} | ({"sha256": self.digest} if self.digest else {})


def engine(spec: ModelSpec, sizes: list[tuple[Any, Any]]) -> EngineArtifact:
    """An engine with profiles of (minimum, maximum)."""
    profiles = tuple(Profile(least, least, most) for least, most in sizes)
    return EngineArtifact(Path("a.plan"), "0" * 64, "rtx", "float16", profiles, (), spec, {}, {}, {}, {})


def pictures(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape, np.float32)


def photograph(channels: int, rows: int, columns: int) -> Any:
    pixels = to_channels(read_image(dict(sample_images())["coffee"]).pixels, channels)
    return np.ascontiguousarray(pixels[None, :, :rows, :columns])


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("AGILEIR_EXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---- putting tiles together ----


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("size", [(40, 61), (16, 100), (7, 9), (33, 33)])
def test_tiles_with_enough_overlap_are_the_whole_picture(size: tuple[int, int], batch: int) -> None:
    runner, images = Blurring(), pictures(2, 3, *size)
    inside = np.s_[..., 6:, : 2 * size[1] - 6]  # what wraps around the picture's edge is not a tile's business
    whole = runner.run(images)
    plan = plan_tiles(size, (16, 20), 12, 4)
    found = run_in_tiles(runner, images, plan, batch)
    np.testing.assert_allclose(found[inside], whole[inside], atol=1e-6)
    assert {shape[2:] for shape in runner.shapes[1:]} == {(plan.rows.tile, plan.columns.tile)}
    assert sum(shape[0] for shape in runner.shapes[1:]) == 2 * plan.count
    assert max(shape[0] for shape in runner.shapes[1:]) <= 2 * batch


@pytest.mark.parametrize("size, tile, overlap", [((64, 24), 16, 8), ((40, 61), 20, 12), ((96, 32), 32, 28)])
def test_parts_come_with_their_tile_and_fill_the_picture_once(size: tuple[int, int], tile: int, overlap: int) -> None:
    runner, images = Blurring(), pictures(1, 3, *size)
    plan = plan_tiles(size, (tile, tile), overlap, 4)
    filled = np.zeros([2 * side for side in size], int)
    for number, (top, left, part) in enumerate(restored_parts(runner, images, plan), 1):
        assert len(runner.shapes) == number
        filled[top : top + part.shape[2], left : left + part.shape[3]] += 1
    assert number == plan.count
    assert (filled == 1).all()


@pytest.mark.parametrize("kind", ["agileir", "semanir", "semanir-unet", "swinir-light"])
def test_on_the_grid_a_network_sees_the_same_windows(kind: str, folder: Path) -> None:
    """Far from the cut nothing differs from the whole picture; off the grid, everything does.

    The end of the picture is left out: the shift brings AgileIR's depthwise filter the opposite edge, of whatever it
    is given.
    """
    runner = OnnxRuntimeRunner(networks.exported(folder, kind))
    multiple, scale = runner.spec.pad_multiple, runner.spec.scale
    images = photograph(runner.spec.channels, 4 * multiple, 16 * multiple)
    whole = runner.run(images)

    def error(first: int) -> float:
        part = runner.run(np.ascontiguousarray(images[..., first:]))
        far = np.s_[..., 8 * multiple * scale : 12 * multiple * scale]
        return float(
            np.abs(part[..., (8 * multiple - first) * scale :][..., : 4 * multiple * scale] - whole[far]).max()
        )

    assert error(2 * multiple) < 1e-5
    assert error(2 * multiple + 1) > 1e-4


# ---- what a runner takes ----


@pytest.mark.parametrize(
    ("sizes", "tiles"),
    [
        ([((1, 32, 32), (1, 32, 32))], (32, 32)),
        ([((1, 16, 16), (4, 48, 32))], (40, 28)),
        ([((1, 16, 16), (1, 16, 16)), ((1, 56, 48), (2, 56, 48))], (56, 48)),
    ],
    ids=["fixed", "a range", "two profiles"],
)
def test_an_engine_gets_tiles_of_its_profiles(sizes: Any, tiles: tuple[int, int]) -> None:
    runner, images = Blurring(sizes=sizes), pictures(1, 3, 70, 85)
    found = TiledRunner(runner, overlap=8, room=Scarce(20)).run(images)  # an engine has its own memory
    assert {shape[2:] for shape in runner.shapes} == {tiles}
    free = Blurring()
    np.testing.assert_allclose(found[..., 6:, :-6], free.run(images)[..., 6:, :-6], atol=1e-6)


def test_a_picture_within_a_profile_is_one_tile_and_a_small_one_is_filled_up() -> None:
    runner = Blurring(sizes=[((1, 32, 32), (1, 64, 64))])
    assert TiledRunner(runner).run(pictures(1, 3, 50, 20)).shape == (1, 3, 100, 40)
    assert runner.shapes == [(1, 3, 52, 32)]


@pytest.mark.parametrize("size", [(9, 30), (20, 7), (8, 8), (33, 21)])
def test_a_static_file_takes_any_picture(size: tuple[int, int], folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    free = OnnxRuntimeRunner(artifact)
    fixed = OnnxRuntimeRunner(export_onnx(networks.build("swinir-light"), static=(16, 24)))
    images = photograph(3, *size)
    found = TiledRunner(fixed, overlap=8).run(images)
    assert found.shape == (1, 3, 2 * size[0], 2 * size[1])
    if size[0] <= 16 and size[1] <= 24:
        expected = fixed.run(pad_to_size(images, 16, 24))[..., : 2 * size[0], : 2 * size[1]]
        np.testing.assert_array_equal(found, expected)
    else:
        assert psnr(free.run(images), found) > 25  # tiny windows and random weights; the place is looked at
    with pytest.raises(InputError, match="was exported for 16x24"):
        TiledRunner(fixed, "off").run(images)


class Scarce:
    """Memory for so many pixels."""

    def __init__(self, side: int) -> None:
        self.side = side

    def fits(self, rows: int, columns: int, batch: int = 1, beside: int = 0) -> bool:
        return batch * rows * columns <= self.side**2

    def largest_tile(self, multiple: int, beside: int = 0) -> int:
        return self.side // multiple * multiple


def test_what_does_not_fit_is_cut_into_tiles_that_do() -> None:
    runner = Blurring()
    tiled = TiledRunner(runner, overlap=4, room=Scarce(30))
    assert tiled.plan(30, 28) is None
    assert tiled.plan(28, 200) == (plan_tiles((28, 200), (28, 28), 4, 4), 1)
    assert TiledRunner(runner, "off", room=Scarce(30)).plan(999, 999) is None
    assert TiledRunner(runner, 13, overlap=3).plan(20, 16) == (plan_tiles((20, 16), (16, 16), 4, 4), 1)
    assert TiledRunner(runner, (8, 99), overlap=0).plan(20, 40) == (plan_tiles((20, 40), (8, 40), 0, 4), 1)


@pytest.mark.parametrize("tile", [0, -8, (8,), (8, 0), "large", 1.5])
def test_no_tile(tile: Any) -> None:
    with pytest.raises(InputError, match="is no tile"):
        TiledRunner(Blurring(), tile)


def test_overlaps_that_cannot_be() -> None:
    with pytest.raises(InputError, match="leaves gaps"):
        TiledRunner(Blurring(), overlap=-1)
    with pytest.raises(InputError, match=r"16x16 pixels cannot overlap by 16.*--overlap 12 or less"):
        TiledRunner(Blurring(), 16, overlap=15).run(pictures(1, 3, 40, 40))


# ---- seams ----


def test_only_pixels_near_seams_are_judged() -> None:
    plan = plan_tiles((64, 100), (64, 64), 8, 8)
    (seam,) = plan.columns.seams
    truth = pictures(1, 3, 128, 200)
    far, near = truth.copy(), truth.copy()
    far[..., : round(2 * seam) - 16] = 0
    near[..., round(2 * seam)] = 0
    assert seam_psnr(truth, far, plan, 2) == np.inf
    assert seam_psnr(truth, near, plan, 2) < 30
    assert seam_psnr(truth, far, TilePlan(cut(64, 64, 0, 8), cut(100, 104, 0, 8)), 2) == np.inf


def test_the_overlap_that_a_reach_needs_is_found() -> None:
    """Pixels that lie three apart are mixed: from an overlap on where the blend stays away from edges, all is right."""
    table = measure_seams(Blurring(reach=3))
    assert table.figures[4] < 40
    assert table.choose(150) == max(table.figures) == 8
    assert measure_seams(Blurring(reach=9)).choose(150) == 24


def test_it_is_measured_with_tiles_that_an_engine_takes() -> None:
    for sizes in ([((1, 32, 64), (1, 32, 64))], [((1, 8, 8), (1, 40, 48)), ((1, 8, 8), (1, 8, 8))]):
        assert measure_seams(Blurring(sizes=sizes)).choose(150) == 8


def test_an_overlap_must_stay_good_when_it_grows() -> None:
    table = SeamTable({8: 70.0, 16: 50.0, 24: 65.0, 32: 90.0})
    assert [table.choose(target) for target in (40, 60, 65, 80, 91)] == [8, 24, 24, 32, None]
    assert SeamTable.from_json(SeamTable({8: 70.0, 16: np.inf}).to_json()) == SeamTable({8: 70.0, 16: np.inf})


def test_it_is_measured_once(kept: Path) -> None:
    runner = Blurring()
    runner.digest = "1" * 64
    assert known_seams(runner.digest) is None
    table = seam_table(runner)
    again = Blurring()
    again.digest = runner.digest
    assert seam_table(again) == table == known_seams(runner.digest)
    assert again.shapes == []
    again.digest = "2" * 64
    assert known_seams(again.digest) is None
    seam_table(again)
    assert again.shapes
    assert len(Cache(drawer="seams").entries()) == 2


def test_a_runner_that_does_not_say_what_it_runs_is_measured_again(kept: Path) -> None:
    seam_table(Blurring())
    assert not kept.exists()


def test_a_model_is_known_by_its_weights(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "ENOUGH", 0.0)  # one overlap is enough
    first, second = (TorchRunner(networks.build("swinir-light")) for _ in range(2))
    table = seam_table(first)
    assert seam_table(second) == table
    assert len(Cache(drawer="seams").entries()) == 1


def test_the_overlap_reaches_what_was_asked_for(kept: Path) -> None:
    images = pictures(1, 3, 90, 90)
    tiled = TiledRunner(Blurring(), 48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiled.run(images)
    assert [tiled.plan(90, 90)] == [(plan_tiles((90, 90), (48, 48), 8, 4), 1)]


def test_where_no_overlap_does_the_largest_is_taken_and_it_is_said(kept: Path) -> None:
    with pytest.warns(SeamWarning, match=r"overlap by 4: seams are \d+\.\d dB on the samples, 60 dB were asked for"):
        chosen = TiledRunner(Blurring(), 8).plan(90, 90)
    assert chosen is not None and chosen[0].overlap == 4


def test_files_of_any_size(tmp_path: Path, kept: Path) -> None:
    source = read_image(dict(sample_images())["coffee"])
    write_image(tmp_path / "in.png", dataclasses.replace(source, pixels=source.pixels[:, :90, :]))
    runner = Blurring()
    found = restore_pictures(runner, tmp_path / "in.png", tmp_path / "tiles.png", tile=(48, 64), seam_psnr=50.0)
    assert found.done[0].size_out == (180, 512)
    assert {shape[2:] for shape in runner.shapes[-10:]} == {(36, 60)}
    restore_pictures(Blurring(), tmp_path / "in.png", tmp_path / "whole.png", tile="off")
    one, two = (read_image(tmp_path / name).pixels[:, 6:, :-6] for name in ("tiles.png", "whole.png"))
    assert np.abs(one - two).max() <= 1 / 255 + 1e-6


class Cramped:
    """A runner that has memory for so many pixels only."""

    def __init__(self, runner: Any, most: int) -> None:
        self.inner, self.most, self.spec = runner, most, runner.spec
        self.tried: list[tuple[int, ...]] = []

    def describe(self) -> dict[str, Any]:
        return dict(self.inner.describe())

    def run(self, images: Any) -> Any:
        self.tried.append(images.shape[2:])
        if images.shape[2] * images.shape[3] > self.most:
            raise MemoryError("bad allocation")
        return self.inner.run(images)


def test_out_of_memory_all_the_same_halves_the_tiles(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner = OnnxRuntimeRunner(networks.exported(folder, "swinir-light"))
    images = networks.images(1, 3, 64, 64)
    cramped = Cramped(runner, 40 * 40)
    restored = TiledRunner(cramped, overlap=8).run(images)
    assert restored.shape == runner.run(images).shape
    assert max(map(np.prod, cramped.tried[1:])) <= 40 * 40 < np.prod(cramped.tried[0])
    assert "Memory ran out: tiles of 32 pixels" in caplog.text
    with pytest.raises(MemoryError):
        TiledRunner(Cramped(runner, 40 * 40), "off").run(images)
    with pytest.raises(MemoryError):
        TiledRunner(Cramped(runner, 40 * 40), 64).run(images)
    with pytest.raises(MemoryError):
        TiledRunner(Cramped(runner, 4), overlap=8).run(images)


def test_a_budget_cuts_what_would_go_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def planned(runner: Any, budget: int | None, **_: Any) -> MemoryPlan:
        asked.append(budget)
        return MemoryPlan(0.0, 1000.0, 4, 1000 * 32 * 32 * 2)

    monkeypatch.setattr("agileir_export.restore.tiled_runner.memory_plan", planned)
    runner = OnnxRuntimeRunner(networks.exported(folder, "swinir-light"))
    room = PlannedRoom(runner)
    assert room.fits(512, 512) and not asked, "small pictures are not worth measuring"
    assert not room.fits(512, 516) and asked == [None]
    tight = PlannedRoom(runner, 10**6)
    assert not tight.fits(64, 64) and tight.fits(32, 32) and tight.largest_tile(4) == 36
    plan, _ = TiledRunner(runner, overlap=8, room=tight).plan(64, 64)
    assert plan.rows.tile <= 36


def test_where_memory_is_not_told_tiles_are_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untold(*_: Any, **__: Any) -> None:
        raise EnvironmentProblem("Plan 9 does not tell how much memory is free.")

    monkeypatch.setattr("agileir_export.restore.tiled_runner.memory_plan", untold)
    room = PlannedRoom(OnnxRuntimeRunner(networks.exported(folder, "swinir-light")))
    assert room.fits(512, 512) and not room.fits(516, 516) and room.largest_tile(8) == 256
