import struct
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image as pillow
from PIL import ImageCms

from agileir_export.images.files import Image, read_image, write_image

EXIF_SUFFIXES = (".png", ".jpg", ".webp", ".tif")
MAKE, ORIENTATION, EXPOSURE = 271, 274, 0x829A
EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825


def picture(channels=3, bits=8, alpha=False, size=(13, 17), seed=0):
    """Random samples on the exact grid of the bit depth, both ends of the range included."""
    top = 2**bits - 1
    samples = np.random.default_rng(seed).integers(0, top + 1, (channels + alpha, *size))
    samples[:, 0, 0], samples[:, 0, 1] = 0, top
    samples[channels:, 1] = 0  # the colour under full transparency counts, too
    planes = (samples / top).astype(np.float32)
    return Image(planes[:channels], planes[channels:] if alpha else None, bits)


def smooth(channels=3, size=(32, 40)):
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    planes = [rows, columns, 1 - rows][:channels]
    return Image(np.stack(planes).astype(np.float32))


def grid(planes, bits):
    return np.rint(planes.astype(np.float64) * (2**bits - 1)).astype(int)


def same(a, b, bits):
    np.testing.assert_array_equal(grid(a.pixels, bits), grid(b.pixels, bits))
    assert (a.alpha is None) == (b.alpha is None)
    if a.alpha is not None:
        np.testing.assert_array_equal(grid(a.alpha, bits), grid(b.alpha, bits))


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, bits, colour, rows, extra=b""):
    """A PNG by the letter of the standard; every row of `rows` starts with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def saved(path, image, **options):
    image.save(path, **options)
    return path


def exif_block():
    exif = pillow.Exif()
    exif[ORIENTATION] = 6
    exif[MAKE] = "Mäker".encode("latin-1")
    exif[EXIF_DIRECTORY] = {EXPOSURE: 0.25}
    return exif.tobytes()


def srgb():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# Round trips


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff"])
def test_png_and_tiff_keep_every_bit(tmp_path, suffix, bits, channels, alpha):
    image = picture(channels, bits, alpha)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    assert again.bit_depth == bits
    assert again.pixels.shape == image.pixels.shape
    assert again.pixels.dtype == np.float32
    same(again, image, bits)


def test_a_tall_picture_is_written_band_by_band(tmp_path):
    image = picture(alpha=True, size=(150, 3))
    write_image(tmp_path / "a.png", image)
    same(read_image(tmp_path / "a.png"), image, 8)


@pytest.mark.parametrize("alpha", [False, True])
def test_webp_keeps_8_bit_colour_and_alpha(tmp_path, alpha):
    image = picture(3, 8, alpha)
    write_image(tmp_path / "a.webp", image)
    same(read_image(tmp_path / "a.webp"), image, 8)


def test_webp_stores_grey_as_three_equal_channels(tmp_path):
    image = picture(1, 8, True)
    write_image(tmp_path / "a.webp", image)
    same(read_image(tmp_path / "a.webp"), replace(image, pixels=image.pixels.repeat(3, 0)), 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_keeps_8_bits(tmp_path, channels):
    image = picture(channels)
    write_image(tmp_path / "a.bmp", image)
    same(read_image(tmp_path / "a.bmp"), image, 8)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close(tmp_path, channels, suffix):
    image = smooth(channels)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    assert again.pixels.shape == image.pixels.shape
    assert np.abs(again.pixels - image.pixels).max() < 4 / 255


def test_jpeg_keeps_chroma_at_full_resolution(tmp_path):
    stripes = np.zeros((3, 32, 32), np.float32)
    stripes[0, :, ::2] = stripes[2, :, 1::2] = 1
    write_image(tmp_path / "a.jpg", Image(stripes))
    assert np.abs(read_image(tmp_path / "a.jpg").pixels - stripes).mean() < 0.05


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_alpha_becomes_a_white_page_where_the_format_has_none(tmp_path, suffix):
    pixels = np.full((3, 16, 48), 0.2, np.float32)
    alpha = np.repeat(np.float32([0, 0.5, 1]), 16)[None, None].repeat(16, 1)
    write_image(tmp_path / f"a{suffix}", Image(pixels, alpha))
    again = read_image(tmp_path / f"a{suffix}")
    assert again.alpha is None
    for column, wanted in ((8, 1.0), (24, 0.6), (40, 0.2)):
        np.testing.assert_allclose(again.pixels[:, 8, column], wanted, atol=2 / 255)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_16_bits_become_8_where_the_format_ends_there(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", replace(smooth(), bit_depth=16))
    assert read_image(tmp_path / f"a{suffix}").bit_depth == 8


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_samples_are_rounded_to_nearest_and_clamped(tmp_path, suffix, bits):
    top = 2**bits - 1
    values = np.float32([-0.3, 1.7, 100.6 / top, 100.4 / top])
    write_image(tmp_path / f"a{suffix}", Image(values.reshape(1, 1, 4), bit_depth=bits))
    again = read_image(tmp_path / f"a{suffix}")
    assert grid(again.pixels, bits).ravel().tolist() == [0, top, 101, 100]


def test_written_16_bit_files_say_so_to_other_libraries(tmp_path):
    image = picture(3, 16)
    wanted = grid(image.pixels, 16).transpose(1, 2, 0)
    write_image(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), wanted)
    write_image(tmp_path / "a.png", image)
    assert (tmp_path / "a.png").read_bytes()[24:26] == bytes([16, 2])
    with pillow.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), wanted >> 8)


# Forms of files


def test_hand_made_16_bit_colour_png(tmp_path):
    data = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 1, 257, 65535, 2, 3, 4))
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    assert grid(image.pixels, 16).tolist() == [[[1, 2]], [[257, 3]], [[65535, 4]]]
    assert image.alpha is None


def test_transparent_colour_of_16_bit_png_becomes_alpha(tmp_path):
    rows = b"\0" + struct.pack(">6H", 1, 2, 3, 1, 2, 4)
    data = png(2, 1, 16, 2, rows, chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    (tmp_path / "a.png").write_bytes(data)
    assert read_image(tmp_path / "a.png").alpha.tolist() == [[[0, 1]]]


def test_4_bit_grey_png_with_transparency(tmp_path):
    data = png(2, 1, 4, 0, b"\0\xf3", chunk(b"tRNS", struct.pack(">H", 15)))
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    assert grid(image.pixels, 8).tolist() == [[[255, 51]]]
    assert image.alpha.tolist() == [[[0, 1]]]
    assert image.bit_depth == 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palette_becomes_rgb(tmp_path, suffix):
    indices = pillow.new("P", (2, 1))
    indices.putpalette([10, 20, 30, 200, 100, 50])
    indices.putpixel((1, 0), 1)
    image = read_image(saved(tmp_path / f"a{suffix}", indices))
    assert grid(image.pixels, 8).tolist() == [[[10, 200]], [[20, 100]], [[30, 50]]]
    assert image.alpha is None


def test_palette_with_transparency_becomes_rgb_and_alpha(tmp_path):
    indices = pillow.new("P", (2, 1))
    indices.putpalette([10, 20, 30, 200, 100, 50])
    indices.putpixel((1, 0), 1)
    image = read_image(saved(tmp_path / "a.png", indices, transparency=bytes([51, 255])))
    assert grid(image.alpha, 8).tolist() == [[[51, 255]]]
    assert grid(image.pixels, 8)[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_bilevel_becomes_grey(tmp_path, suffix):
    bits = pillow.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert read_image(saved(tmp_path / f"a{suffix}", bits)).pixels.tolist() == [[[0, 1]]]


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_cmyk_becomes_rgb_without_its_profile(tmp_path, suffix):
    inks = pillow.new("CMYK", (16, 16), (51, 102, 0, 128))
    image = read_image(saved(tmp_path / f"a{suffix}", inks, icc_profile=b"\0" * 16 + b"CMYK"))
    wanted = (1 - np.array([51, 102, 0]) / 255) * (1 - 128 / 255)
    np.testing.assert_allclose(image.pixels[:, 8, 8], wanted, atol=3 / 255)
    assert image.icc_profile is None


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"bigtiff": True},
    ],
)
def test_16_bit_tiff_forms(tmp_path, options):
    samples = np.random.default_rng(1).integers(0, 65536, (19, 23, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", **options)
    again = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(grid(again.pixels, 16), samples.transpose(2, 0, 1))


def test_16_bit_tiff_with_planes_apart(tmp_path):
    samples = np.random.default_rng(1).integers(0, 65536, (3, 19, 23)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(grid(read_image(tmp_path / "a.tif").pixels, 16), samples)


def test_16_bit_tiff_where_white_is_zero(tmp_path):
    samples = np.array([[0, 1, 65535]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
    assert grid(read_image(tmp_path / "a.tif").pixels, 16).tolist() == [[[65535, 65534, 0]]]


def test_multiplied_alpha_of_a_tiff_is_divided_out(tmp_path):
    samples = np.array([[[20000, 10000, 0, 40000], [0, 0, 0, 0]]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.pixels[:, 0, 0], [0.5, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(image.pixels[:, 0, 1], 0)
    np.testing.assert_allclose(image.alpha[0, 0], [40000 / 65535, 0], atol=1e-6)


def test_undeclared_tiff_channels_are_left_out(tmp_path):
    samples = np.random.default_rng(1).integers(0, 65536, (5, 6, 5)).astype(np.uint16)
    extra = ["unspecified", "unspecified"]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=extra)
    image = read_image(tmp_path / "a.tif")
    assert image.alpha is None
    np.testing.assert_array_equal(grid(image.pixels, 16), samples.transpose(2, 0, 1)[:3])


def test_a_tiff_thumbnail_is_skipped(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.full((8, 8), 7, np.uint16))
        file.write(np.zeros((2, 2), np.uint16), subfiletype=1)
    assert grid(read_image(tmp_path / "a.tif").pixels, 16).tolist() == [[[7] * 8] * 8]


def test_the_pictures_after_the_first_of_a_jpeg_are_skipped(tmp_path):
    first, second = pillow.new("L", (16, 16), 255), pillow.new("L", (16, 16), 0)
    path = tmp_path / "a.jpg"
    first.save(path, format="MPO", save_all=True, append_images=[second])
    assert read_image(path).pixels.min() == 1


def test_the_content_decides_not_the_suffix(tmp_path):
    write_image(tmp_path / "a.png", picture())
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    same(read_image(tmp_path / "a.jpg"), picture(), 8)


# Metadata


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", EXIF_SUFFIXES)
def test_exif_is_carried_and_pixels_are_not_rotated(tmp_path, suffix, bits):
    path = tmp_path / f"a{suffix}"
    write_image(path, replace(smooth(), exif=exif_block(), bit_depth=bits))
    with pillow.open(path) as opened:
        written = opened.getexif()
        assert (written[ORIENTATION], written[MAKE]) == (6, "Mäker")
        assert dict(written.get_ifd(EXIF_DIRECTORY)) == {EXPOSURE: 0.25}
    again = read_image(path)
    np.testing.assert_allclose(again.pixels, smooth().pixels, atol=4 / 255)
    if suffix != ".tif":
        assert again.exif == exif_block()
    else:
        read = pillow.Exif()
        read.load(again.exif)
        assert {tag: read[tag] for tag in read if tag != EXIF_DIRECTORY} == {ORIENTATION: 6, MAKE: "Mäker"}
        assert dict(read.get_ifd(EXIF_DIRECTORY)) == {EXPOSURE: 0.25}
    # a block that was cut out of a file must work in every format
    for other in EXIF_SUFFIXES:
        write_image(tmp_path / f"b{other}", again, overwrite=True)
        with pillow.open(tmp_path / f"b{other}") as opened:
            assert opened.getexif()[ORIENTATION] == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_of_a_tiff_is_what_describes_the_picture(tmp_path, dtype):
    # Pillow writes Exif directories only without compression, and 16 bits only in grey
    exif = pillow.Exif()
    exif.load(exif_block())
    exif[MAKE] = "Maker"  # Pillow would write a question mark for anything but ASCII
    exif[GPS_DIRECTORY] = {1: "N", 2: (48.0, 8.0, 30.5)}
    saved(tmp_path / "a.tif", pillow.fromarray(np.zeros((8, 9), dtype)), exif=exif.tobytes())
    image = read_image(tmp_path / "a.tif")
    read = pillow.Exif()
    read.load(image.exif)
    assert set(read) == {ORIENTATION, MAKE, EXIF_DIRECTORY, GPS_DIRECTORY}
    assert (read[ORIENTATION], read[MAKE]) == (6, "Maker")
    assert dict(read.get_ifd(EXIF_DIRECTORY)) == {EXPOSURE: 0.25}
    assert dict(read.get_ifd(GPS_DIRECTORY)) == {1: "N", 2: (48.0, 8.0, 30.5)}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", EXIF_SUFFIXES)
def test_no_metadata_is_invented(tmp_path, suffix, bits):
    write_image(tmp_path / f"a{suffix}", replace(smooth(), bit_depth=bits))
    again = read_image(tmp_path / f"a{suffix}")
    assert (again.exif, again.icc_profile) == (None, None)


def test_exif_too_long_for_jpeg_shrinks_to_its_orientation(tmp_path):
    exif = pillow.Exif()
    exif[ORIENTATION], exif[MAKE] = 8, "x" * 70000
    image = replace(smooth(), exif=exif.tobytes())
    write_image(tmp_path / "a.jpg", image)
    with pillow.open(tmp_path / "a.jpg") as opened:
        assert dict(opened.getexif()) == {ORIENTATION: 8}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", EXIF_SUFFIXES)
@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x" * 70000])
def test_damaged_exif_never_stops_a_picture(tmp_path, suffix, bits, exif):
    image = replace(smooth(), exif=exif, bit_depth=bits)
    write_image(tmp_path / f"a{suffix}", image)
    assert read_image(tmp_path / f"a{suffix}").pixels.shape == image.pixels.shape


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", EXIF_SUFFIXES)
def test_icc_profile_is_carried(tmp_path, suffix, bits):
    write_image(tmp_path / f"a{suffix}", replace(smooth(), icc_profile=srgb(), bit_depth=bits))
    assert read_image(tmp_path / f"a{suffix}").icc_profile == srgb()


@pytest.mark.parametrize("suffix", EXIF_SUFFIXES)
def test_icc_profile_of_another_colour_space_is_dropped(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", replace(smooth(1), icc_profile=srgb()))
    assert read_image(tmp_path / f"a{suffix}").icc_profile is None


# The picture itself


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": np.zeros((2, 4, 4), np.float32)}, r"float32 \[2, 4, 4\]"),
        ({"pixels": np.zeros((4, 4), np.float32)}, r"float32 \[4, 4\]"),
        ({"pixels": np.zeros((3, 4, 4))}, "float64"),
        ({"pixels": np.zeros((3, 0, 4), np.float32)}, "empty"),
        ({"alpha": np.zeros((1, 4, 5), np.float32)}, r"\[1, 4, 5\]"),
        ({"alpha": np.zeros((1, 4, 4))}, "float64"),
        ({"bit_depth": 10}, "not 10"),
    ],
)
def test_image_checks_itself(change, message):
    fields = {"pixels": np.zeros((3, 4, 4), np.float32), **change}
    with pytest.raises(ValueError, match=message):
        Image(**fields)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_what_pillow_writes(tmp_path, channels):
    """The picture is encoded without Pillow's copies; the bytes are the same."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if channels == 3 else None
    image = replace(picture(channels), icc_profile=profile)
    write_image(tmp_path / "a.jpg", image)
    samples = (image.pixels * 255).round().astype(np.uint8).transpose(1, 2, 0)
    with pillow.open(tmp_path / "a.jpg") as opened:
        kept = {key: opened.info[key] for key in ("exif", "icc_profile") if key in opened.info}
    stream = BytesIO()
    pillow.fromarray(samples[:, :, 0] if channels == 1 else samples).save(
        stream, format="JPEG", quality=95, subsampling=0, **kept
    )
    assert (tmp_path / "a.jpg").read_bytes() == stream.getvalue()
