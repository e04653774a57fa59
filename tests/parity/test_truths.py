"""Ground truth of the user's: pairs by name, inputs that are made, cuts, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from agileir_export.errors import ImageError, InputError
from agileir_export.images.files import Image, write_image
from agileir_export.images.resizing import resize_bicubic
from agileir_export.models import ModelSpec
from agileir_export.parity.truths import LARGEST_INPUT, own_pairs

SR = ModelSpec("swinir", "custom", "super-resolution", 2, 3, window_size=4, pad_multiple=4)
JPEG = dataclasses.replace(SR, task="jpeg", scale=1)


def picture(path: Path, rows: int, columns: int) -> np.ndarray:
    """Writes noise of 8 bits; returns it as it is read."""
    path.parent.mkdir(exist_ok=True)
    steps = np.random.default_rng(rows * 1000 + columns).integers(0, 256, (3, rows, columns))
    pixels = (steps / 255).astype(np.float32)
    write_image(path, Image(pixels))
    return pixels


@pytest.mark.parametrize("name", ["a.png", "ax2.png", "a_x2.png", "a.bmp"])
def test_pairs_go_by_name(name: str, tmp_path: Path) -> None:
    truth = picture(tmp_path / "sharp" / "a.png", 13, 9)
    given = picture(tmp_path / "small" / name, 6, 4)
    picture(tmp_path / "small" / "b.png", 3, 3)  # of no picture
    (pair,) = own_pairs(SR, [tmp_path / "sharp"], [tmp_path / "small"])
    assert pair.name == "a.png"
    assert np.array_equal(pair.given, given)
    assert np.array_equal(pair.truth, truth[:, :12, :8])


def test_the_most_telling_name_wins(tmp_path: Path) -> None:
    picture(tmp_path / "sharp" / "a.png", 8, 8)
    picture(tmp_path / "small" / "a.png", 8, 8)
    given = picture(tmp_path / "small" / "ax2.png", 4, 4)
    (pair,) = own_pairs(SR, [tmp_path / "sharp"], [tmp_path / "small"])
    assert np.array_equal(pair.given, given)


def test_inputs_are_made_where_the_task_is_known(tmp_path: Path) -> None:
    truth = picture(tmp_path / "a.png", 9, 8)
    (pair,) = own_pairs(SR, [tmp_path / "a.png"])
    assert np.array_equal(pair.given, resize_bicubic(truth[:, :8], 0.5, quantize=True))


def test_an_unknown_task_needs_pairs(tmp_path: Path) -> None:
    given = picture(tmp_path / "bad" / "a.png", 5, 7)
    picture(tmp_path / "sharp" / "a.png", 5, 7)
    with pytest.raises(InputError, match="what degrades a picture of the task jpeg") as refused:
        own_pairs(JPEG, [tmp_path / "sharp"])
    assert "--images" in (refused.value.fix or "")
    (pair,) = own_pairs(JPEG, [tmp_path / "sharp"], [tmp_path / "bad"])
    assert np.array_equal(pair.given, given)
    with pytest.raises(InputError, match="4 channels"):
        own_pairs(dataclasses.replace(SR, channels=4), [tmp_path / "sharp"], [tmp_path / "bad"])


def test_a_picture_without_its_input_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "sharp" / name, 8, 8)
    picture(tmp_path / "small" / "a.png", 4, 4)
    with pytest.raises(InputError, match=r"1 of 2 pictures .* b\.png"):
        own_pairs(SR, [tmp_path / "sharp"], [tmp_path / "small"])


@pytest.mark.parametrize("size", [(3, 4), (4, 5), (8, 8)])
def test_an_input_of_another_scale_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    picture(tmp_path / "sharp" / "a.png", 8, 9)
    picture(tmp_path / "small" / "a.png", *size)
    with pytest.raises(InputError, match="not 2 times fewer"):
        own_pairs(SR, [tmp_path / "sharp"], [tmp_path / "small"])


def test_fixed_sizes_cut_the_middle_of_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = picture(tmp_path / "sharp" / "a.png", 20, 16)
    given = picture(tmp_path / "small" / "a.png", 10, 8)
    picture(tmp_path / "sharp" / "b.png", 20, 6)
    picture(tmp_path / "small" / "b.png", 10, 3)
    with caplog.at_level(logging.INFO):
        (pair,) = own_pairs(SR, [tmp_path / "sharp"], [tmp_path / "small"], (4, 4))
    assert np.array_equal(pair.given, given[:, 3:7, 2:6])
    assert np.array_equal(pair.truth, truth[:, 6:14, 4:12])
    assert "Of a.png the middle is judged" in caplog.text and "b.png" in caplog.text
    with pytest.raises(ImageError, match="None of 2") as refused:
        own_pairs(SR, [tmp_path / "sharp"], [tmp_path / "small"], (64, 64))
    assert "64x64" in (refused.value.fix or "")


def test_a_photograph_is_cut(tmp_path: Path) -> None:
    rows = LARGEST_INPUT[0] + 2
    truth = picture(tmp_path / "a.png", rows, 4)
    (pair,) = own_pairs(JPEG, [tmp_path / "a.png"], [tmp_path / "a.png"])
    assert np.array_equal(pair.truth, truth[:, 1:-1]) and np.array_equal(pair.given, pair.truth)


def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "sharp" / "a.png", 8, 8)
    picture(tmp_path / "sharp" / "tiny.png", 1, 8)
    (tmp_path / "sharp" / "b.png").write_bytes(b"no picture")
    with caplog.at_level(logging.INFO):
        assert [pair.name for pair in own_pairs(SR, [tmp_path / "sharp"])] == ["a.png"]
    assert "b.png" in caplog.text and "tiny.png" in caplog.text
    with pytest.raises(ImageError, match=r"b\.png"):
        own_pairs(SR, [tmp_path / "sharp" / "b.png"])
