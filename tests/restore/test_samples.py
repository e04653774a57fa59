"""Results in samples: what a file will hold, part by part; and pictures of other channels than grey and colour."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from agileir_export.errors import OutputError, Unsupported
from agileir_export.images.files import Image, check_finite, read_image, write_image
from agileir_export.restore import TiledRunner, plan_outputs, restore_image, restore_planned

from .one_file import restore_file
from .test_files import SUFFIXES, Nearest, enlarged, exif, picture


@pytest.mark.parametrize("runner_channels", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_file_is_what_writing_the_floats_would_make(
    tmp_path: Path, bits: int, suffix: str, channels: int, runner_channels: int, alpha: bool
) -> None:
    """Restoring into samples, in tiles or whole, saves memory and changes no byte."""
    write_image(tmp_path / "in.png", picture(channels, bits, alpha, exif(6)))
    runner = Nearest(runner_channels)
    restore_file(runner, tmp_path / "in.png", tmp_path / f"whole{suffix}")
    restore_file(TiledRunner(runner, 3, overlap=1), tmp_path / "in.png", tmp_path / f"tiles{suffix}")
    write_image(tmp_path / f"floats{suffix}", restore_image(runner, read_image(tmp_path / "in.png")))
    floats = (tmp_path / f"floats{suffix}").read_bytes()
    assert (tmp_path / f"whole{suffix}").read_bytes() == floats
    assert (tmp_path / f"tiles{suffix}").read_bytes() == floats


@pytest.mark.parametrize("bits, kind", [(8, np.uint8), (16, np.uint16)])
def test_samples_are_those_of_the_floats(bits: int, kind: type) -> None:
    given = picture(bits=bits)
    found = restore_image(Nearest(), given, bits).pixels
    expected = np.rint(restore_image(Nearest(), given).pixels * (2**bits - 1))
    assert found.dtype == kind and np.array_equal(found, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_overflowed_becomes_no_file(tmp_path: Path, suffix: str) -> None:
    class Overflowing(Nearest):
        def run(self, images: Any) -> Any:
            restored = super().run(images)
            restored[0, 0, :2, 0] = np.nan, np.inf
            return restored

    write_image(tmp_path / "in.png", picture())
    with pytest.raises(OutputError, match="2 of its values are NaN or infinite"):
        restore_file(Overflowing(), tmp_path / "in.png", tmp_path / f"out{suffix}")
    assert not (tmp_path / f"out{suffix}").exists()


def test_tiles_leave_room_for_the_picture_and_its_file(tmp_path: Path) -> None:
    """40 times 60 pixels: 4 times 3 samples each, and 12 bytes of input or what encoding takes, which comes later."""
    asked = []

    class Noting:
        def fits(self, rows: int, columns: int, batch: int = 1, beside: int = 0) -> bool:
            asked.append(beside)
            return False

        def largest_tile(self, multiple: int, beside: int = 0) -> int:
            assert beside == asked[-1]
            return 16

    write_image(tmp_path / "in.png", Image(np.zeros((3, 40, 60), np.float32)))
    for suffix, share in ((".jpg", 0.5), (".png", 2.0)):
        tiled = TiledRunner(Nearest(), overlap=0, room=Noting())
        restore_file(tiled, tmp_path / "in.png", tmp_path / f"out{suffix}")
        assert asked.pop() == 40 * 60 * (4 * 3 + max(12, 4 * 3 * share))


def test_large_pictures_are_written_in_little_memory(tmp_path: Path) -> None:
    """Beside the samples the file and what the encoder takes, not another byte for each sample."""
    image = Image(np.zeros((2000, 1000, 3), np.uint8).transpose(2, 0, 1))  # as results are gathered
    floats = np.zeros((3, 1000, 1000), np.float32)
    write_image(tmp_path / "first.jpg", Image(np.zeros((3, 8, 8), np.uint8)))
    tracemalloc.start()
    try:
        write_image(tmp_path / "out.jpg", image)
        assert tracemalloc.get_traced_memory()[1] < image.pixels.size / 4
        tracemalloc.reset_peak()
        check_finite(floats)
        assert tracemalloc.get_traced_memory()[1] < 1.2 * 1000**2
    finally:
        tracemalloc.stop()


# ---- models of other channels ----


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [2, 4, 6])
def test_all_bands_go_through_a_model_of_as_many(tmp_path: Path, channels: int, kind: Any, tiles: bool) -> None:
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    bands = (np.random.default_rng(0).random((channels, 5, 7)) * top).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(bands, 0, -1), photometric="minisblack", planarconfig="contig")
    runner: Any = Nearest(channels)
    done = restore_file(TiledRunner(runner, 3, overlap=1) if tiles else runner, tmp_path / "a.tif", tmp_path / "b.tif")
    found = np.moveaxis(tifffile.imread(tmp_path / "b.tif"), -1, 0)
    assert found.dtype == kind and np.array_equal(found, enlarged(bands))
    assert (done.size_in, done.size_out) == ((5, 7), (10, 14))


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_other_pictures_are_refused_before_work(tmp_path: Path, channels: int) -> None:
    runner = Nearest(channels)
    write_image(tmp_path / "rgb.png", picture(3))
    write_image(tmp_path / "rgb.tif", picture(3))
    write_image(tmp_path / "grey.tif", picture(1))
    for name, output, has in (
        ("rgb.png", "out.tif", "is no TIFF"),
        ("rgb.tif", "out.tif", "has 3 channels"),
        ("grey.tif", "out.tif", "has 1 channels"),
        ("grey.tif", "out.png", "goes to a .png"),
    ):
        plan = plan_outputs([tmp_path / name], tmp_path / output)
        with pytest.raises(Unsupported, match=f"a model of {channels} channels: .*{has}") as caught:
            restore_planned(runner, plan)
        assert caught.value.exit_code == 3
    assert runner.shapes == [] and not list(tmp_path.glob("out*"))
