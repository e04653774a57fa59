"""Picture files through a runner: every form in, the same form out, and nothing lost on the way."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as pillow

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import EnvironmentProblem, ImageError, InputError, OutputError
from agileir_export.images.files import IMAGE_SUFFIXES, Image, read_image, write_image
from agileir_export.images.picture import Density
from agileir_export.images.resizing import resize_bicubic
from agileir_export.models import ModelSpec
from agileir_export.restore import (
    FolderOptions,
    Plan,
    plan_outputs,
    restore_image,
    restore_planned,
)

from ..export import networks
from .one_file import restore_file

ORIENTATION, MAKE = 274, 271
SUFFIXES = [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpe", ".jpeg", ".jfif", ".tiff")]
HOLDS_16_BITS = (".png", ".tif")
HOLDS_ALPHA = (".png", ".tif", ".webp")
HOLDS_GREY = (".png", ".tif", ".jpg", ".bmp")
HOLDS_EXIF = (".png", ".tif", ".jpg", ".webp")


class Nearest:
    """Repeats pixels: a restoration whose result is known."""

    def __init__(self, channels: int = 3, scale: int = 2) -> None:
        self.spec = ModelSpec("swinir", "custom", "super-resolution", scale, channels, window_size=1, pad_multiple=1)
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images: Any) -> Any:
        assert images.dtype == np.float32 and images.shape[1] == self.spec.channels
        assert images.flags.c_contiguous
        self.shapes.append(images.shape)
        return enlarged(images, self.spec.scale)

    def describe(self) -> dict[str, Any]:
        return {"target": "nearest"}


def enlarged(planes: Any, scale: int = 2) -> Any:
    return planes.repeat(scale, -2).repeat(scale, -1)


def exif(orientation: int) -> bytes:
    block = pillow.Exif()
    block[ORIENTATION], block[MAKE] = orientation, "maker"
    return block.tobytes()


def picture(channels: int = 3, bits: int = 8, alpha: bool = False, exif: bytes | None = None) -> Image:
    """A smooth picture of 5 x 7 pixels on the grid of its bit depth."""
    top = 2**bits - 1
    rows, columns = np.mgrid[0:5, 0:7]
    planes = [rows / 5, columns / 7, (rows + columns) / 12, 1 - rows / 9][: channels + alpha]
    if channels == 1 and alpha:
        planes[1] = columns / 6
    samples = (np.rint(np.stack(planes) * top) / top).astype(np.float32)
    return Image(samples[:channels], samples[channels:] if alpha else None, bits, exif)


def forms() -> list[Any]:
    """Every combination a file format holds: suffix, channels, bits, alpha, orientation."""
    found = []
    for suffix in SUFFIXES:
        for channels in (3, 1) if suffix in HOLDS_GREY else (3,):
            for bits in (8, 16) if suffix in HOLDS_16_BITS else (8,):
                for alpha in (False, True) if suffix in HOLDS_ALPHA else (False,):
                    for orientation in (None, 1, 3, 6) if suffix in HOLDS_EXIF else (None,):
                        form = (suffix, channels, bits, alpha, orientation)
                        found.append(pytest.param(*form, id="-".join(map(str, form))))
    return found


# ---- what a file is, its restoration is ----


@pytest.mark.parametrize(("suffix", "channels", "bits", "alpha", "orientation"), forms())
def test_a_file_keeps_its_form(
    suffix: str, channels: int, bits: int, alpha: bool, orientation: int | None, tmp_path: Path
) -> None:
    given = picture(channels, bits, alpha, exif(orientation) if orientation else None)
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_image(source, given)
    read = read_image(source)  # JPEG has changed the samples
    done = restore_file(Nearest(), source, target)
    assert (done.source, done.output, done.size_in, done.size_out) == (source, target, (5, 7), (10, 14))
    assert done.seconds >= 0
    restored = read_image(target)
    assert (len(restored.pixels), restored.bit_depth, restored.alpha is not None) == (channels, bits, alpha)
    lossy = 0.03 if suffix == ".jpg" else 0.51 / (2**bits - 1)
    np.testing.assert_allclose(restored.pixels, enlarged(read.pixels), atol=lossy + 1e-6)
    if restored.alpha is not None:
        assert read.alpha is not None
        expected = np.clip(resize_bicubic(read.alpha, 2), 0, 1)
        np.testing.assert_allclose(restored.alpha, expected, atol=lossy)
    tags = pillow.Exif()
    tags.load(restored.exif or b"")
    assert (tags.get(ORIENTATION), tags.get(MAKE)) == (orientation, "maker" if orientation else None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_of_the_output_is_its_format(suffix: str, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", picture())
    restore_file(Nearest(), tmp_path / "in.png", tmp_path / f"out{suffix}")
    with pillow.open(tmp_path / f"out{suffix}") as opened:
        assert opened.format == {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())


def test_grey_through_a_colour_model() -> None:
    class Tinted(Nearest):
        def run(self, images: Any) -> Any:
            assert np.array_equal(images[:, 0], images[:, 1]) and np.array_equal(images[:, 0], images[:, 2])
            return super().run(images) * np.array([0.5, 0.25, 1], np.float32)[:, None, None]

    given = picture(1)
    restored = restore_image(Tinted(), given)
    share = 0.299 * 0.5 + 0.587 * 0.25 + 0.114 * 1
    np.testing.assert_allclose(restored.pixels, share * enlarged(given.pixels), atol=1e-6)


def test_colour_through_a_grey_model() -> None:
    runner, given = Nearest(channels=1), picture(3)
    restored = restore_image(runner, given)
    assert runner.shapes == [(3, 1, 5, 7)]
    assert np.array_equal(restored.pixels, enlarged(given.pixels))


def test_grey_through_a_grey_model() -> None:
    runner = Nearest(channels=1)
    assert np.array_equal(restore_image(runner, picture(1)).pixels, enlarged(picture(1).pixels))
    assert runner.shapes == [(1, 1, 5, 7)]


def test_values_outside_the_range_are_clamped() -> None:
    class Loud(Nearest):
        def run(self, images: Any) -> Any:
            return super().run(images) * 3 - 1

    pixels = restore_image(Loud(), picture()).pixels
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_alpha_stays_in_range_and_colour_profile_travels() -> None:
    given = dataclasses.replace(picture(alpha=True), icc_profile=b"profile")
    hard = np.zeros((1, 5, 7), np.float32)
    hard[:, :, 3:] = 1
    restored = restore_image(Nearest(), dataclasses.replace(given, alpha=hard))
    assert restored.icc_profile == b"profile"
    assert restored.alpha is not None
    assert restored.alpha.shape == (1, 10, 14)
    assert (restored.alpha.min(), restored.alpha.max()) == (0, 1)  # bicubic overshoots at a hard edge


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_through_a_real_file(channels: int, bits: int, tmp_path: Path, folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    runner = OnnxRuntimeRunner(artifact)
    given = picture(channels, bits, alpha=True, exif=exif(6))
    write_image(tmp_path / "in.png", given)
    restore_file(runner, tmp_path / "in.png", tmp_path / "out.png")
    restored = read_image(tmp_path / "out.png")
    colour = np.repeat(given.pixels, 3 // channels, 0)
    expected = runner.run(colour[None])[0]
    if channels == 1:
        expected = np.einsum("chw,c->hw", expected, [0.299, 0.587, 0.114])[None]
    np.testing.assert_allclose(restored.pixels, np.clip(expected, 0, 1), atol=0.51 / (2**bits - 1) + 1e-6)
    assert restored.exif is not None and restored.alpha is not None


# ---- what is not seen, and what speaks of size ----


class Blurring(Nearest):
    """Mixes every pixel with its neighbours, so that hidden colours would show."""

    def run(self, images: Any) -> Any:
        mixed = np.mean([np.roll(images, (dy, dx), (2, 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)
        return enlarged(mixed, self.spec.scale)


def disc(channels: int, hidden: float, top: int) -> Image:
    """A soft-edged disc of one colour over another, hidden one."""
    rows, columns = np.mgrid[:24, :24]
    alpha = np.rint(np.clip(9 - np.hypot(rows - 11.5, columns - 11.5), 0, 1) * top) / top
    subject = np.array([0.9, 0.4, 0.2], np.float32)[:channels, None, None]
    pixels = np.where(alpha > 0, np.rint(subject * top) / top, hidden).astype(np.float32)
    return Image(pixels, alpha[None].astype(np.float32), 8 if top == 255 else 16)


@pytest.mark.parametrize("output", [".png", ".tif", ".webp", ".jpg", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("form", "bits"), [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".webp", 8)])
def test_hidden_colours_are_not_seen(form: str, bits: int, channels: int, output: str, tmp_path: Path) -> None:
    found = []
    for number, hidden in enumerate((0.0, 1.0)):
        write_image(tmp_path / f"{number}{form}", disc(channels, hidden, 2**bits - 1))
        restore_file(Blurring(), tmp_path / f"{number}{form}", tmp_path / f"out{number}{output}")
        found.append(read_image(tmp_path / f"out{number}{output}"))
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)
    if found[0].alpha is not None:
        subject = np.array([0.9, 0.4, 0.2], np.float32)[:channels, None, None]
        assert (np.abs(found[0].pixels - subject) * found[0].alpha).max() < 0.01


def test_a_key_colour_and_premultiplied_samples(tmp_path: Path) -> None:

    given = disc(3, 0, 65535)
    assert given.alpha is not None
    stored = np.rint(np.concatenate([given.pixels * given.alpha, given.alpha]) * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored.transpose(1, 2, 0), photometric="rgb", extrasamples=["assocalpha"])
    keyed = pillow.fromarray((given.alpha[0] > 0.5).astype(np.uint8))
    keyed.putpalette([255, 0, 255, 230, 102, 51])
    keyed.save(tmp_path / "b.png", transparency=0)
    keyed.save(tmp_path / "c.gif", transparency=0)
    for name in ("a.tif", "b.png", "c.gif"):
        restored = restore_image(Blurring(), read_image(tmp_path / name))
        assert restored.alpha is not None
        seen = np.abs(restored.pixels - np.array([0.9, 0.4, 0.2])[:, None, None]) * restored.alpha
        assert seen.max() < 0.01


def test_a_restored_scan_prints_in_its_size(tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", dataclasses.replace(picture(), density=Density(300, 300)))
    restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.jpg")
    assert read_image(tmp_path / "out.jpg").density == Density(600, 600)


@pytest.mark.parametrize(("source", "target", "side"), [("a.webp", "b.webp", 9000), ("a.png", "b.jpg", 40000)])
def test_a_size_that_will_not_fit_is_refused_first(source: str, target: str, side: int, tmp_path: Path) -> None:
    write_image(tmp_path / "small.png", picture())
    write_image(tmp_path / source, Image(np.zeros((3, 1, side), np.float32)))
    runner = Nearest()
    pairs = (tmp_path / "small.png", tmp_path / "s.png"), (tmp_path / source, tmp_path / target)
    with pytest.raises(OutputError, match=f"{2 * side}x2 picture does not go"):
        restore_planned(runner, Plan(pairs))
    assert runner.shapes == []
    assert not (tmp_path / "s.png").exists()


# ---- when it does not go well ----


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")], ids=repr)
def test_too_little_memory_is_said(error: Exception) -> None:
    with pytest.raises(EnvironmentProblem, match="5x7 pixels needs more memory"):
        restore_image(failing(error), picture())


def test_too_little_memory_for_onnxruntime() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    error = runtime.RuntimeException("Failed to allocate memory for requested buffer of size 1")
    with pytest.raises(EnvironmentProblem, match="more memory"):
        restore_image(failing(error), picture())


@pytest.mark.parametrize("error", [RuntimeError("shape"), InputError("cannot be allocated"), KeyboardInterrupt()])
def test_other_errors_are_not_renamed(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        restore_image(failing(error), picture())
    assert caught.value is error


def failing(error: BaseException) -> Nearest:
    class Failing(Nearest):
        def run(self, images: Any) -> Any:
            raise error

    return Failing()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_is_written_after_an_error(value: float, tmp_path: Path) -> None:
    class Overflowing(Nearest):
        def run(self, images: Any) -> Any:
            return super().run(images) * np.float32(value)

    write_image(tmp_path / "in.png", picture())
    runner = Overflowing() if np.isnan(value) else failing(KeyboardInterrupt())
    with pytest.raises((OutputError, KeyboardInterrupt)):
        restore_file(runner, tmp_path / "in.png", tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_an_old_file_survives_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "in.png", picture())
    (tmp_path / "out.png").write_bytes(b"old")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)  # Ctrl-C between writing and renaming
    with pytest.raises(KeyboardInterrupt):
        restore_file(Nearest(), tmp_path / "in.png", tmp_path / "out.png", overwrite=True)
    assert (tmp_path / "out.png").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_an_unreadable_picture(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(b"no picture")
    runner = Nearest()
    with pytest.raises(ImageError, match=r"in\.png"):
        restore_file(runner, tmp_path / "in.png", tmp_path / "out.png")
    assert runner.shapes == []
    assert not (tmp_path / "out.png").exists()


# ---- which file goes where ----


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own current folder with pictures a.png, b.jpg and more/a.png; planning looks at names only."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.jpg", "more/a.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def plan(*sources: str, to: str, overwrite: bool = False) -> list[tuple[str, str]]:
    found = plan_outputs(sources, to, FolderOptions(overwrite)).pairs
    return [(source.as_posix(), target.as_posix()) for source, target in found]


def test_one_picture_to_a_file(here: Path) -> None:
    assert plan("a.png", to="out.webp") == [("a.png", "out.webp")]
    assert plan("more", to="out.PNG") == [("more/a.png", "out.PNG")]
    assert not (here / "out.webp").exists()


@pytest.mark.parametrize("folder", ["out", "deep/er", "v1.2", "."])
def test_pictures_to_a_folder(folder: str, here: Path) -> None:
    if folder == ".":
        assert plan("more", to="more/../deep") == [("more/a.png", "more/../deep/a.png")]
        return
    expected = [("a.png", f"{folder}/a.png"), ("b.jpg", f"{folder}/b.jpg")]
    assert plan("a.png", "b.jpg", to=folder) == expected
    assert (here / folder).is_dir()
    assert plan(".", to=folder) == expected  # the folder is there now
    assert plan("a.png", to=folder) == expected[:1]


def test_a_new_folder_with_a_dot_in_its_name(here: Path) -> None:
    assert plan("a.png", "b.jpg", to="holiday.paris") == [
        ("a.png", "holiday.paris/a.png"),
        ("b.jpg", "holiday.paris/b.jpg"),
    ]
    assert plan("a.png", to="holiday.rome/") == [("a.png", "holiday.rome/a.png")]
    with pytest.raises(OutputError, match=r"\.oslo names no image format.* ends with a slash"):
        plan("a.png", to="holiday.oslo")


def test_what_is_only_read_becomes_png_in_a_folder(here: Path) -> None:
    for name in ("more/b.gif", "more/b.AVIF", "more/c.jfif"):
        (here / name).write_bytes(b"x")
    assert [target for _, target in plan("more", to="out")] == [
        "out/a.png",
        "out/b.AVIF.png",
        "out/b.gif.png",
        "out/c.jfif",
    ]


def test_a_folder_may_look_like_a_picture(here: Path) -> None:
    (here / "out.png").mkdir()
    assert plan("a.png", to="out.png") == [("a.png", "out.png/a.png")]


@pytest.mark.parametrize(
    ("sources", "to", "message"),
    [
        (["a.png"], "b.jpg", "exists already"),
        (["a.png"], "more", "exists already"),
        (["a.png", "b.jpg"], "c.png", "2 pictures do not go into one file"),
        (["a.png", "b.jpg"], "b.jpg", "2 pictures do not go into one file"),
        (["a.png"], "a.png", "its own restoration"),
        (["more/a.png"], "more/../more", "its own restoration"),
        (["."], ".", "its own restoration"),
        (["a.png", "more"], "out", "both be written to"),
        (["a.png"], "out.gif", r"\.gif names no image format"),
        (["a.png"], "gone/out.png", "no folder gone"),
        (["a.png"], "b.jpg/deep", "cannot be made"),
    ],
)
def test_what_cannot_be_planned(sources: list[str], to: str, message: str, here: Path) -> None:
    before = sorted(here.rglob("*"))
    with pytest.raises(OutputError, match=message):
        plan(*sources, to=to)
    assert sorted(here.rglob("*")) == before


def test_overwriting_only_when_asked(here: Path) -> None:
    assert plan("a.png", to="b.jpg", overwrite=True) == [("a.png", "b.jpg")]
    assert plan("a.png", to="more", overwrite=True) == [("a.png", "more/a.png")]
    with pytest.raises(OutputError, match="its own restoration"):
        plan("a.png", to="a.png", overwrite=True)


def test_a_link_to_the_source_is_the_source(here: Path) -> None:
    (here / "link.png").symlink_to(here / "a.png")
    with pytest.raises(OutputError, match="its own restoration"):
        plan("a.png", to="link.png", overwrite=True)


def test_a_source_whose_name_is_no_format(here: Path) -> None:
    (here / "scan").write_bytes(b"x")
    assert plan("scan", to="scan.png") == [("scan", "scan.png")]
    with pytest.raises(OutputError, match="no suffix names no image format"):
        plan("scan", to="out")
    assert not (here / "out").exists()


def test_missing_pictures(here: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png"):
        plan("none.png", to="out")
    assert not (here / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(here: Path) -> None:
    (here / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="read-only"):
        plan("a.png", to="out")
