"""TIFF files of other channels than grey and RGB: every sample type and layout comes back, and the place on earth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from agileir_export.errors import ImageError
from agileir_export.images.spectral import bands_of, read_spectral, rescaled_spectral, write_spectral

PLACE = [
    (33550, 12, 3, (10.0, 20.0, 0.0), True),
    (33922, 12, 6, (3.0, 4.0, 0.0, 500000.0, 4600000.0, 0.0), True),
    (34264, 12, 16, tuple(map(float, range(16))), True),
    (34735, 3, 4, (1, 1, 0, 0), True),
    (42113, 2, 0, "0", True),
]


def samples(kind: Any, channels: int) -> Any:
    generator = np.random.default_rng(0)
    if kind == np.float32:
        return generator.random((channels, 7, 9), np.float32) * 3 - 1
    return generator.integers(0, np.iinfo(kind).max + 1, (channels, 7, 9)).astype(kind)


def written(path: Path, bands: Any, planar: bool = False, **options: Any) -> Path:
    layout = "separate" if planar else "contig"
    given = bands if planar else np.moveaxis(bands, 0, -1)
    tifffile.imwrite(path, given, **{"photometric": "minisblack", "planarconfig": layout, **options})
    return path


@pytest.mark.parametrize("channels", [2, 4, 6])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_round_trip(tmp_path: Path, kind: Any, planar: bool, channels: int) -> None:
    bands = samples(kind, channels)
    image = read_spectral(written(tmp_path / "a.tif", bands, planar), channels)
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    np.testing.assert_allclose(image.pixels, bands / np.float32(top), rtol=1e-6)
    write_spectral(tmp_path / "b.tif", image)
    found = tifffile.imread(tmp_path / "b.tif")
    assert found.dtype == kind
    assert np.array_equal(found if planar else np.moveaxis(found, -1, 0), bands)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.planarconfig == (2 if planar else 1)
    assert bands_of(tmp_path / "b.tif") == channels


def test_red_green_blue_and_near_infrared_stay_that(tmp_path: Path) -> None:
    bands = samples(np.uint8, 4)
    path = written(tmp_path / "a.tif", bands, photometric="rgb", extrasamples=["unspecified"])
    write_spectral(tmp_path / "b.tif", read_spectral(path, 4))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages.first
        assert page.photometric == tifffile.PHOTOMETRIC.RGB and page.extrasamples == (0,)
        assert np.array_equal(np.moveaxis(page.asarray(), -1, 0), bands)


def test_a_larger_picture_shows_the_same_place(tmp_path: Path) -> None:
    """Twice the pixels: half the ground each, tie points at twice the column and row, twice as many an inch."""
    path = written(tmp_path / "a.tif", samples(np.uint16, 4), extratags=PLACE, resolution=(100, 200), resolutionunit=2)
    image = read_spectral(path, 4)
    larger = rescaled_spectral(image, image.pixels.repeat(2, 1).repeat(2, 2))
    write_spectral(tmp_path / "b.tif", larger)
    found = read_spectral(tmp_path / "b.tif", 4)
    assert {code: value for code, _, _, value in found.place} == {
        33550: (5.0, 10.0, 0.0),
        33922: (6.0, 8.0, 0.0, 500000.0, 4600000.0, 0.0),
        34264: (0.0, 0.5, 2.0, 3.0, 2.0, 2.5, 6.0, 7.0, 4.0, 4.5, 10.0, 11.0, 6.0, 6.5, 14.0, 15.0),
        34735: (1, 1, 0, 0),
        42113: "0",
    }
    assert found.resolution == (200, 400, 2)
    assert image.resolution == (100, 200, 2)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (np.zeros((3, 4, 4), np.uint8), "it has 3 channels, the model takes 4"),
        (np.zeros((4, 4, 4), np.int16), "its samples are int16"),
        (np.full((4, 4, 4), np.nan, np.float32), "NaN or infinite"),
    ],
    ids=["channels", "type", "nan"],
)
def test_other_files_are_refused(tmp_path: Path, bands: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_spectral(written(tmp_path / "a.tif", bands), 4)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"no picture", None], ids=["empty", "cut", "text", "cut data"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = written(tmp_path / "a.tif", samples(np.uint16, 4))
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ImageError, match=r"Cannot read .*a\.tif"):
        read_spectral(path, 4)
    with pytest.raises(ImageError, match="Cannot read"):
        read_spectral(tmp_path / "none.tif", 4)
    assert bands_of(tmp_path / "none.tif") is None


def test_several_pictures_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(2):
            file.write(np.zeros((4, 4, 4), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="holds 2 pictures"):
        read_spectral(tmp_path / "a.tif", 4)
