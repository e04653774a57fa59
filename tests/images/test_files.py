import errno
import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as pillow

from agileir_export.errors import EnvironmentProblem, ImageError, OutputError
from agileir_export.files import check_output, write_atomic
from agileir_export.images.files import (
    IMAGE_SUFFIXES,
    Image,
    check_side,
    list_images,
    read_image,
    read_size,
    sample_images,
    write_image,
)


def picture(bits=8, size=(13, 17), alpha=False):
    """Random samples, which no format can compress much, on the exact grid of 8 bits."""
    planes = np.random.default_rng(0).integers(0, 256, (4, *size)).astype(np.float32) / 255
    return Image(planes[:3], planes[3:] if alpha else None, bits)


def assert_holds_the_picture(path):
    np.testing.assert_array_equal(read_image(path).pixels, picture().pixels)


# Files that cannot be read


def refused(path):
    """The error of reading `path`, which must be typed, name the file and offer a way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as caught:
            read_image(path)
    assert str(path) in caught.value.what
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_file(tmp_path):
    assert "no file" in refused(tmp_path / "none.png")


def test_folder(tmp_path):
    assert "is a folder" in refused(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    assert "empty" in refused(tmp_path / "a.png")


def test_impossible_name():
    assert "no file" in refused("a\0b.png")


def test_file_without_permission(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")

    def deny(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "Permission denied" in refused(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this file system")
def test_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "regular file" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"hello, world", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff"])
def test_no_image(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    assert "no image" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpeg", ".jpe")])
def test_truncated_file(tmp_path, suffix, share, bits):
    path = tmp_path / f"a{suffix}"
    write_image(path, picture(bits, size=(64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "truncated" in refused(path)


def test_one_flipped_bit_in_a_png(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, picture(size=(64, 64)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "damaged" in refused(path)


def test_oversized_images(tmp_path):
    write_image(tmp_path / "a.png", picture())
    data = bytearray((tmp_path / "a.png").read_bytes())
    struct.pack_into(">II", data, 16, 20000, 20000)
    (tmp_path / "a.png").write_bytes(data)
    assert "20000x20000 is over the limit" in refused(tmp_path / "a.png")
    write_image(tmp_path / "a.bmp", picture())
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    for size, wanted in ((13000, "truncated"), (20000, "over the limit")):
        struct.pack_into("<ii", data, 18, size, size)
        (tmp_path / "a.bmp").write_bytes(data)
        assert wanted in refused(tmp_path / "a.bmp")  # of 13000 x 13000, Pillow warns only
    write_image(tmp_path / "a.tif", picture(bits=16))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(60000)
        file.pages[0].tags["ImageLength"].overwrite(60000)
    assert "60000x60000 is over the limit" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_several_pictures_in_one_file(tmp_path, suffix):
    first, second = pillow.new("RGB", (16, 16)), pillow.new("RGB", (16, 16), "red")
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second])
    assert "2 pictures" in refused(tmp_path / f"a{suffix}")


def test_a_tiff_whose_directories_form_a_ring(tmp_path, capfd):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((8, 8), np.uint16), metadata=None)
        file.write(np.zeros((2, 2), np.uint16), metadata=None, subfiletype=1)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, second = (page.offset for page in file.pages)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (count,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    (tmp_path / "a.tif").write_bytes(data)
    assert "damaged" in refused(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint32", "int16"])
def test_unusual_tiff_samples(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), dtype), photometric="rgb")
    assert dtype in refused(tmp_path / "a.tif")


def test_16_bit_cmyk_tiff(tmp_path):
    samples = np.zeros((8, 8, 4), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="separated")
    assert "SEPARATED" in refused(tmp_path / "a.tif")


def test_tiff_that_starts_with_a_preview(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((2, 2), np.uint8), subfiletype=1)
        file.write(np.zeros((8, 8), np.uint8))
    assert "preview" in refused(tmp_path / "a.tif")


FOREIGN = {
    "a JPEG XL file": [b"\xff\x0a\xfa\x1f\x01", b"\0\0\0\x0cJXL \r\n\x87\n\0\0"],
    "a HEIC file": [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"],
    "a video or raw file": [b"\0\0\0\x18ftypmp42\0\0\0\0", b"\0\0\0\x18ftypcrx \0\0\0\1"],
    "a portable anymap": [b"P6\n2 1\n255\n123456", b"P4 1 1\n\x80", b"P7\nWIDTH 1\n"],
    "a Photoshop file": [b"8BPS\0\1"],
    "an icon file": [b"\0\0\1\0\1\0\x10\x10"],
    "a PDF file": [b"%PDF-1.7"],
    "a DICOM file": [b"\0" * 128 + b"DICM"],
    "a pointer of Git LFS": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00"],
    "a web page": [b"<!DOCTYPE html><html>", b"<html><body>"],
}


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, many in FOREIGN.items() for data in many])
def test_a_sound_file_of_another_format_is_named(tmp_path, name, data):
    (tmp_path / "a.png").write_bytes(data)
    message = refused(tmp_path / "a.png")
    assert name in message and "not read" in message and "damaged" not in message


@pytest.mark.parametrize("format", ["PPM", "ICO", "TGA", "PCX"])
def test_other_formats_of_pillow_are_not_tried(tmp_path, format):
    pillow.new("RGB", (16, 16), "red").save(tmp_path / "a.img", format=format)
    refused(tmp_path / "a.img")


# Files that cannot be written


def failed(path, image=None, overwrite=False):
    with pytest.raises(OutputError) as caught:
        write_image(path, picture() if image is None else image, overwrite)
    assert str(path) in caught.value.what
    assert caught.value.fix
    return str(caught.value)


def test_existing_file_is_kept_unless_told(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    assert "exists already" in failed(path)
    assert path.read_bytes() == b"old"
    write_image(path, picture(), overwrite=True)
    assert_holds_the_picture(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_link_to_nowhere_counts_as_existing(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    assert "exists already" in failed(tmp_path / "a.png")


def test_missing_folder(tmp_path):
    assert "no folder" in failed(tmp_path / "none" / "a.png")
    assert not (tmp_path / "none").exists()


def test_output_is_a_folder(tmp_path):
    (tmp_path / "a.png").mkdir()
    assert "is a folder" in failed(tmp_path / "a.png", overwrite=True)


def test_read_only_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert "read-only" in failed(tmp_path / "a.png")
    with pytest.raises(OutputError, match="read-only"):
        check_output(tmp_path / "a.png")


def test_check_output_accepts_a_free_name(tmp_path):
    check_output(tmp_path / "a.png")
    (tmp_path / "a.png").touch()
    check_output(tmp_path / "a.png", overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        check_output(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a", "a.gif", "a.png.txt"])
def test_unknown_suffix(tmp_path, name):
    assert "suffix" in failed(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("in_alpha", [False, True])
def test_values_that_are_no_numbers(tmp_path, value, in_alpha):
    image = picture(alpha=True)
    (image.alpha if in_alpha else image.pixels)[0, 2, 3] = value
    assert "1 of its values" in failed(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_picture_too_wide_for_webp(tmp_path):
    image = Image(np.zeros((1, 1, 16384), np.float32))
    assert "16384x1" in failed(tmp_path / "a.webp", image)
    assert not list(tmp_path.iterdir())


class Failing(io.BytesIO):
    """A file that takes some bytes and then fails."""

    def __init__(self, path, error):
        super().__init__()
        path.write_bytes(b"half of i")
        self.error = error

    def write(self, data):
        raise self.error


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (OSError(errno.EROFS, "Read-only file system"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("place", ["write", "rename"])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, old, error, raised, place):
    path = tmp_path / "a.png"
    if old is not None:
        path.write_bytes(old)
    reached = []

    def opened(self, *args):
        reached.append(self)
        monkeypatch.undo()  # Failing itself writes to disk
        return Failing(self, error)

    def renamed(self, target):
        reached.append(self)
        assert self.stat().st_size > 9
        raise error

    if place == "write":
        monkeypatch.setattr(Path, "open", opened)
    else:
        monkeypatch.setattr(Path, "replace", renamed)
    with pytest.raises(raised) as caught:
        write_image(path, picture(), overwrite=True)
    assert reached
    assert reached[0].parent == tmp_path
    if raised is OutputError:
        assert error.strerror in str(caught.value)
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert left == ({} if old is None else {"a.png": old})


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    original = Path.open

    def opened(self, *args):
        (tmp_path / "a.json").touch()
        return original(self, *args)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OutputError, match="exists already"):
        write_atomic(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").stat().st_size == 0


@pytest.mark.skipif(os.name != "posix", reason="permission bits of POSIX")
def test_the_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    write_image(tmp_path / "a.png", picture())
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


# Lists of files


def names(files):
    return [file.name for file in files]


def test_a_folder_is_listed_in_natural_order(tmp_path):
    for name in ("b10.png", "B9.jpg", "b1.TIF", "a.webp", "10.bmp", "9.png", "notes.txt", ".x.png"):
        (tmp_path / name).touch()
    (tmp_path / "deep.png").mkdir()
    (tmp_path / "deep.png" / "c.png").touch()
    wanted = ["9.png", "10.bmp", "a.webp", "b1.TIF", "B9.jpg", "b10.png"]
    assert names(list_images(tmp_path)) == wanted
    assert names(list_images([str(tmp_path)])) == wanted


def test_files_keep_their_order_and_come_once(tmp_path):
    for name in ("a.png", "b.png", "odd.name"):
        (tmp_path / name).touch()
    given = [tmp_path / "odd.name", tmp_path / "b.png", tmp_path, tmp_path / "b.png"]
    assert names(list_images(given)) == ["odd.name", "b.png", "a.png"]


def test_a_digit_of_another_script_does_not_break_the_order(tmp_path):
    for name in ("²2.png", "٣.png", "1.png"):
        (tmp_path / name).touch()
    assert names(list_images(tmp_path))[0] == "1.png"


def test_nothing_to_list(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="has no image") as caught:
        list_images(tmp_path)
    assert str(tmp_path) in caught.value.what
    with pytest.raises(ImageError, match=r"none\.png"):
        list_images([tmp_path / "none.png"])
    with pytest.raises(ImageError, match="No image"):
        list_images([])


def test_what_a_folder_leaves_out_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    taken = ["1.png", "b.JFIF", "c.jpe", "d.gif", "e.jp2"]
    for name in (*taken, "notes.txt", "more.TXT", "x.heic", "none", ".hidden.txt"):
        (tmp_path / name).touch()
    assert names(list_images(tmp_path)) == taken
    assert "1 with .heic, 2 with .txt, 1 with no suffix are left out" in caplog.text
    caplog.clear()
    list_images(tmp_path / "none")
    assert not caplog.text


# Sizes


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_the_size_without_the_pixels(tmp_path, suffix, bits):
    write_image(tmp_path / f"a{suffix}", picture(bits))
    assert read_size(tmp_path / f"a{suffix}") == (13, 17)


def test_a_size_that_cannot_be_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "b.png").write_bytes(b"nothing")
    assert [read_size(tmp_path / name) for name in ("a.png", "b.png", "c.png")] == [None] * 3


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16383), ("a.JPG", 65500), ("a.jfif", 65500)])
def test_the_largest_side(tmp_path, name, side):
    check_side(name, 1, side)
    check_side(name, side, 1)
    check_side("a.png", 1, side + 1)
    for size in ((1, side + 1), (side + 1, 1)):
        with pytest.raises(OutputError, match=f"at most {side} pixels"):
            check_side(name, *size)
    write_image(tmp_path / name, Image(np.zeros((1, 1, side), np.float32)))
    failed(tmp_path / f"b{name[1:]}", Image(np.zeros((1, 1, side + 1), np.float32)))


# Samples


def test_samples_are_small_colour_images_of_different_sizes():
    samples = sample_images()
    assert [name for name, _ in samples] == ["astronaut", "chelsea", "coffee", "rocket"]
    shapes = {read_image(file).pixels.shape for _, file in samples}
    assert shapes == {(3, 192, 192), (3, 160, 256), (3, 192, 256), (3, 141, 187)}
    assert sum(file.stat().st_size for _, file in samples) < 600_000


def test_missing_samples_are_a_problem_of_the_installation(monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(EnvironmentProblem, match="samples"):
        sample_images()
