"""The pictures of the ladder: sizes that tracing has not seen, crops of the middle, the model's channels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from agileir_export.errors import ImageError
from agileir_export.export import OnnxArtifact
from agileir_export.images.files import Image, sample_images, write_image
from agileir_export.images.picture import to_channels
from agileir_export.models import ModelSpec, build_preset, preset_names
from agileir_export.parity import load_images, verification_images
from agileir_export.parity.images import LARGEST, default_sizes

SPEC = ModelSpec("swinir", "custom", "super-resolution", 2, 3, window_size=8, pad_multiple=8)


def preset_spec(name: str) -> ModelSpec:
    """Its spec, without memory for its weights."""
    with torch.device("meta"):
        return build_preset(name).spec


def save(path: Path, rows: int, columns: int, channels: int = 3) -> np.ndarray:
    """A picture in which every pixel tells its place."""
    levels = np.arange(channels * rows * columns).reshape(channels, rows, columns) % 256
    pixels = (levels / 255).astype(np.float32)
    write_image(path, Image(pixels))
    return pixels


@pytest.mark.parametrize("name", preset_names())
def test_default_sizes_are_not_the_traced_one(name: str) -> None:
    """Tracing takes (3m, 2m), and an export frozen at that size would look sound at that size."""
    multiple = preset_spec(name).pad_multiple
    sizes = default_sizes(preset_spec(name))
    padded = [(rows + -rows % multiple, columns + -columns % multiple) for rows, columns in sizes]
    assert (3 * multiple, 2 * multiple) not in padded
    assert (45, 70) in sizes and (1, 1) in sizes
    assert padded[0] != (45, 70)  # off the grid
    assert sizes[1] == padded[1]  # on it
    assert len(set(padded)) >= 2


def test_every_size_and_every_picture_occurs() -> None:
    images = load_images(SPEC)
    assert [image.name for image in images] == [name for name, _ in sample_images()]
    assert [image.pixels.shape for image in images] == [(3, 45, 70), (3, 64, 64), (3, 1, 1), (3, 45, 70)]
    more = load_images(SPEC, sizes=[(rows, 2) for rows in range(1, 7)])
    assert [image.pixels.shape[1] for image in more] == [1, 2, 3, 4, 5, 6]
    assert {image.name for image in more} == {name for name, _ in sample_images()}


def test_the_middle_is_cut(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png", 9, 14)
    (image,) = load_images(SPEC, [tmp_path / "a.png"], [(5, 4)])
    assert image.name == "a.png"
    assert image.pixels.dtype == np.float32
    assert image.pixels.flags.c_contiguous
    assert np.array_equal(image.pixels, pixels[:, 2:7, 5:9])


def test_a_smaller_picture_is_used_whole_along_that_side(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png", 3, 14)
    (image,) = load_images(SPEC, [tmp_path / "a.png"], [(5, 4)])
    assert np.array_equal(image.pixels, pixels[:, :, 5:9])


def test_files_and_folders_in_order(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("more/10.png", "more/2.png", "first.png"):
        save(tmp_path / name, 4, 4)
    images = load_images(SPEC, [tmp_path / "first.png", tmp_path / "more"], [(2, 2)])
    assert [image.name for image in images] == ["first.png", "2.png", "10.png"]


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png"):
        load_images(SPEC, [tmp_path / "none.png"])


def test_pictures_take_the_channels_of_the_model(tmp_path: Path) -> None:
    grey = dataclasses.replace(SPEC, channels=1)
    colour = save(tmp_path / "colour.png", 2, 3)
    single = save(tmp_path / "grey.png", 2, 3, channels=1)
    (image,) = load_images(grey, [tmp_path / "colour.png"], [(2, 3)])
    np.testing.assert_allclose(image.pixels[0], 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2], atol=1e-6)
    (image,) = load_images(SPEC, [tmp_path / "grey.png"], [(2, 3)])
    assert np.array_equal(image.pixels, np.concatenate([single] * 3))
    assert to_channels(colour, 3) is colour


def artifact(**profile: int) -> OnnxArtifact:
    return OnnxArtifact(onnx.ModelProto(), b"", Path("a.onnx"), "float32", profile, SPEC, {}, (), 1, {})


def test_a_fixed_size_is_the_size_to_verify_at(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 40, 40)
    fixed = artifact(batch=1, height=16, width=24)
    assert {image.pixels.shape for image in verification_images(fixed)} == {(3, 16, 24)}
    assert [i.pixels.shape for i in verification_images(fixed, [tmp_path / "a.png"])] == [(3, 16, 24)]
    assert {i.pixels.shape for i in verification_images(fixed, sizes=[(8, 8)])} == {(3, 8, 8)}
    assert len({image.pixels.shape for image in verification_images(artifact())}) == 3


def test_pictures_of_the_user_are_looked_at_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = save(tmp_path / "a.png", 40, 70)
    large = save(tmp_path / "b.png", LARGEST[0] + 2, 90)
    with caplog.at_level("INFO"):
        images = verification_images(artifact(), [tmp_path])
    assert np.array_equal(images[0].pixels, small) and np.array_equal(images[1].pixels, large[:, 1:-1])
    assert "Of b.png the middle is compared: 256x256 of 258x90" in caplog.text and "a.png" not in caplog.text
    crops = [(image.name, image.pixels.shape[1:]) for image in images[2:]]
    assert crops == [("b.png", (64, 64)), ("a.png", (1, 1))]  # 45x70 of the first is the whole of it


def test_what_cannot_be_read_is_named_and_the_rest_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "b.png", Image(np.zeros((3, 8, 8), np.float32)))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "c.png").write_text("no picture")
    with caplog.at_level("INFO"):
        found = load_images(SPEC, [tmp_path], [(4, 4), (8, 8)])
    assert [(image.name, image.pixels.shape[1:]) for image in found] == [("b.png", (4, 4)), ("b.png", (8, 8))]
    assert caplog.text.count("Skipped: ") == 2 and all(
        str(tmp_path / name) in caplog.text for name in ("a.png", "c.png")
    )
    with pytest.raises(ImageError, match=r"a\.png"):
        load_images(SPEC, [tmp_path / "a.png"])
    with pytest.raises(ImageError, match="None of 2 files"):
        load_images(SPEC, [tmp_path / "a.png", tmp_path / "c.png"])
