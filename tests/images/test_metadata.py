"""Metadata that speaks of size, place and way up, through every format."""

import json
import struct
import zlib
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image as pillow
from PIL import ImageOps

from agileir_export.images.codecs import IMAGE_SUFFIXES, decode, encode, lost
from agileir_export.images.metadata import orientation, rescaled, upright
from agileir_export.images.picture import Density

from .test_codecs import EXIF_DIRECTORY, EXPOSURE, GPS_DIRECTORY, MAKE, ORIENTATION, chunk, exif_block, png, smooth

SUFFIXES = [suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpe", ".jpeg", ".jfif", ".tiff")]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:title>Grandmother 1951</dc:title></x:xmpmeta>'
PIXEL_X, PIXEL_Y = 40962, 40963


def enlarged(image, factor=2):
    pixels = image.pixels.repeat(factor, 1).repeat(factor, 2)
    return rescaled(image, pixels, None)


def saved(form, **options):
    stream = BytesIO()
    pillow.new("RGB", (64, 40), "red").save(stream, format=form, **options)
    return stream.getvalue()


# Density


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
def test_a_scan_prints_in_its_size(form, suffix, factor):
    image = enlarged(decode(saved(form, dpi=(300, 150))), factor)
    assert lost(suffix, image) == []
    data = encode(suffix, image)
    np.testing.assert_allclose(decode(data).density.per(2), (300 * factor, 150 * factor), rtol=1e-3)
    if suffix != ".webp":
        with pillow.open(BytesIO(data)) as opened:
            np.testing.assert_allclose([float(n) for n in opened.info["dpi"]], (300 * factor, 150 * factor), rtol=1e-3)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
@pytest.mark.parametrize("unit", [2, 3])
def test_the_density_in_exif_follows(suffix, unit):
    exif = pillow.Exif()
    exif[282], exif[283], exif[296], exif[MAKE] = 72.0, 72.5, unit, "maker"
    image = enlarged(decode(saved("WEBP", exif=exif.tobytes())))
    assert image.density == Density(144, 145, unit)
    with pillow.open(BytesIO(encode(suffix, image))) as opened:
        tags = opened.getexif()
        assert (float(tags[282]), float(tags[283]), tags[296], tags[MAKE]) == (144, 145, unit, "maker")


def test_a_jpeg_without_exif_by_centimetre():
    data = bytearray(saved("JPEG", dpi=(100, 100)))
    data[13] = 2
    assert decode(bytes(data)).density == Density(100, 100, 3)
    again = decode(encode(".jpg", decode(bytes(data)))).density
    assert again == Density(254, 254, 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_density_is_invented(suffix):
    assert decode(encode(suffix, smooth())).density is None


@pytest.mark.parametrize(("density", "said"), [(Density(65536, 65536), True), (Density(0.1, 0.1), True)])
def test_a_density_that_jpeg_cannot_hold_is_said(density, said):
    image = replace(smooth(), density=density)
    assert ("its pixels an inch" in lost(".jpg", image)) == said
    assert decode(encode(".jpg", image)).density is None


@pytest.mark.parametrize("content", [b"", bytes(9), b"\xff" * 9, struct.pack(">IIB", 1, 1, 0)])
def test_a_senseless_density_is_none(content):
    assert decode(png(1, 1, 8, 0, b"\0\7", chunk(b"pHYs", content))).density is None


# EXIF


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
def test_exif_knows_the_new_size_and_the_rest_stays(suffix, order):
    exif = pillow.Exif()
    exif.endian = order
    exif[MAKE] = "maker"
    exif[EXIF_DIRECTORY] = {PIXEL_X: 64, PIXEL_Y: 40, EXPOSURE: 0.25, 37500: b"maker's note at 1234"}
    exif[GPS_DIRECTORY] = {1: "N", 2: (48.0, 8.0, 30.5)}
    image = enlarged(decode(saved("JPEG", exif=exif.tobytes())))
    with pillow.open(BytesIO(encode(suffix, image))) as opened:
        tags = opened.getexif()
        details = tags.get_ifd(EXIF_DIRECTORY)
        assert (details[PIXEL_X], details[PIXEL_Y], float(details[EXPOSURE])) == (128, 80, 0.25)
        assert details[37500] == b"maker's note at 1234"
        assert dict(tags.get_ifd(GPS_DIRECTORY)) == {1: "N", 2: (48.0, 8.0, 30.5)}
        assert tags[MAKE] == "maker"


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_with_directories_is_sound_for_others(tmp_path, bits):
    image = replace(
        smooth(), exif=exif_block(), icc_profile=b"\0" * 16 + b"RGB " + b"\0" * 108, xmp=XMP, bit_depth=bits
    )
    (tmp_path / "a.tif").write_bytes(encode(".tif", image))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert [tag.code for tag in tags] == sorted(tag.code for tag in tags)
        assert tags["ExifTag"].value["ExposureTime"] == 0.25
        assert file.pages[0].asarray().shape == (32, 40, 3)


@pytest.mark.parametrize("cut", range(8, 100, 7))
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
def test_a_cut_block_stops_no_picture(suffix, cut):
    image = replace(smooth(), exif=exif_block()[:cut], density=Density(300, 300))
    assert decode(encode(suffix, image)).pixels.shape == image.pixels.shape


# XMP and texts


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
def test_xmp_is_carried(suffix):
    image = replace(smooth(), xmp=XMP, exif=exif_block())
    data = encode(suffix, image)
    assert decode(data).xmp == XMP
    if suffix != ".png":  # Pillow reads that of PNG as text
        with pillow.open(BytesIO(data)) as opened:
            assert XMP in (opened.info.get("xmp"), opened.getexif().get(700))


def test_xmp_knows_the_new_size():
    packet = (
        b"<rdf tiff:ImageWidth=\"64\" tiff:XResolution='300/1'><exif:PixelYDimension>40</exif:PixelYDimension></rdf>"
    )
    image = replace(smooth(size=(40, 64)), xmp=packet, density=Density(300, 300))
    written = decode(encode(".png", enlarged(image))).xmp
    assert b'ImageWidth="128"' in written
    assert b"<exif:PixelYDimension>80<" in written
    assert b"XResolution='600000/1000'" in written


def test_xmp_too_long_for_jpeg_is_said():
    image = replace(smooth(), xmp=b"x" * 65530)
    assert lost(".jpg", image) == ["its XMP packet, which is too long"]
    assert decode(encode(".jpg", image)).xmp is None


TEXTS = (("Title", "Grandmother"), ("Author", "Zoë"), ("Comment", "日本"), ("Copyright", "(c) 2020"))


def test_texts_stay_in_png():
    assert decode(encode(".png", replace(smooth(), texts=TEXTS))).texts == TEXTS


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_texts_with_a_tag_of_exif_become_it(suffix):
    image = replace(smooth(), texts=TEXTS)
    with pillow.open(BytesIO(encode(suffix, image))) as opened:
        assert opened.getexif()[33432] == "(c) 2020"
        assert opened.getexif()[315].encode("latin-1").decode() == "Zoë"
    assert lost(suffix, image) == ["its text Title" if suffix == ".jpg" else "its text Comment, Title"]


def test_the_comment_of_a_jpeg():
    image = decode(saved("JPEG", comment="Ölbild".encode()))
    assert image.texts == (("Comment", "Ölbild"),)
    assert decode(encode(".jpg", image)).texts == image.texts
    assert decode(encode(".png", image)).texts == image.texts


def test_packed_and_international_texts_are_read():
    extra = chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"packed"))
    extra += chunk(b"iTXt", b"Author\0\1\0de\0Autor\0" + zlib.compress("Zoë".encode()))
    extra += chunk(b"iTXt", b"broken") + chunk(b"zTXt", b"Bad\0\0no stream") + chunk(b"tEXt", b"Plain\0text")
    texts = decode(png(1, 1, 8, 0, b"\0\7", extra)).texts
    assert texts == (("Title", "packed"), ("Author", "Zoë"), ("Plain", "text"))


def test_packed_texts_do_not_fill_the_memory():
    bomb = chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(1 << 25)))
    texts = decode(png(1, 1, 8, 0, b"\0\7", bomb * 5)).texts
    assert sum(len(text) for _, text in texts) <= 1 << 26


# Structure that microscopes measure with


def tiff(**options):
    stream = BytesIO()
    tifffile.imwrite(stream, (np.arange(40 * 64) * 25).astype(np.uint16).reshape(40, 64), **options)
    return stream.getvalue()


def opened(data):
    return tifffile.TiffFile(BytesIO(data))


@pytest.mark.parametrize("bits", [8, 16])
def test_ome_follows(bits):
    metadata = {"axes": "YX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25}
    image = replace(enlarged(decode(tiff(ome=True, metadata=metadata))), bit_depth=bits)
    data = encode(".tif", image)
    with opened(data) as file:
        text = file.pages[0].description
        assert file.series[0].shape == (80, 128)
    for wanted in ('SizeX="128"', 'SizeY="80"', 'PhysicalSizeX="0.05"', 'PhysicalSizeY="0.125"', "µm"):
        assert wanted in text, text


def test_imagej_follows():
    data = tiff(imagej=True, resolution=(10.0, 5.0), metadata={"unit": "um"})
    image = enlarged(decode(data))
    with opened(encode(".tif", image)) as file:
        assert file.imagej_metadata["unit"] == "um"
        assert file.pages[0].tags["XResolution"].value == (20, 1)
        assert file.pages[0].tags["YResolution"].value == (10, 1)
        assert file.series[0].shape == (80, 128)
    for suffix in (".png", ".jpg", ".webp"):
        assert any("ImageJ description" in words for words in lost(suffix, image))
        assert b"ImageJ=" not in encode(suffix, image)


def test_the_shape_of_tifffile_follows():
    with opened(encode(".tif", enlarged(decode(tiff(metadata={"note": "kept"}))))) as file:
        notes = json.loads(file.pages[0].description)
        assert (notes["shape"], notes["note"]) == ([80, 128], "kept")


@pytest.mark.parametrize(
    "text",
    [
        '<OME><Pixels SizeX="64" SizeY="40" SizeZ="5"/></OME>',
        '<OME><Pixels SizeX="64" SizeY="40"/><Pixels SizeX="64" SizeY="40"/></OME>',
        '<OME><Pixels SizeX="63" SizeY="40"/></OME>',
        '{"shape": [7, 9]}',
        '{"shape": ',
    ],
)
def test_what_cannot_follow_is_left_out_and_said(text, caplog):
    caplog.set_level("INFO")
    image = enlarged(decode(tiff(description=text, metadata=None)))
    assert "left out" in caplog.text
    with opened(encode(".tif", image)) as file:
        assert file.pages[0].description == ""


def test_words_of_people_stay():
    image = enlarged(decode(tiff(description="Shape of a house", metadata=None)))
    with opened(encode(".tif", image)) as file:
        assert file.pages[0].description == "Shape of a house"


# Way up


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_upright_turns_as_pillow_does(way, channels):
    image = smooth(channels, size=(3, 5))
    exif = pillow.Exif()
    exif[ORIENTATION] = way
    turned = upright(replace(image, exif=exif.tobytes(), alpha=image.pixels[:1], density=Density(1, 2)))
    for plane, found in ((image.pixels[0], turned.pixels[0]), (image.pixels[0], turned.alpha[0])):
        stored = pillow.fromarray(plane)
        stored.getexif()[ORIENTATION] = way
        np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(stored)))
    assert turned.density == (Density(2, 1) if way >= 5 else Density(1, 2))


def raw_profile(exif):
    return b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % len(exif) + exif.hex().encode() + b"\n")


@pytest.mark.parametrize("place", ["jpg", "png", "webp", "tif", "raw profile", "xmp", "xmp element"])
def test_a_turned_picture_in_a_bmp_is_upright(place):
    exif = pillow.Exif()
    exif[ORIENTATION] = 6
    pixels = smooth(1, size=(2, 3))
    image = replace(pixels, exif=exif.tobytes())
    if place == "raw profile":
        data = encode(".png", pixels)
        data = data[:33] + chunk(b"zTXt", raw_profile(exif.tobytes())) + data[33:]
    elif place.startswith("xmp"):
        element = b"<tiff:Orientation>6</tiff:Orientation>" if "element" in place else b'<a tiff:Orientation="6"/>'
        data = encode(".png", replace(pixels, xmp=element))
    else:
        data = encode(f".{place}", image)
    given = decode(data)
    assert orientation(given) == 6
    again = decode(encode(".bmp", given))
    np.testing.assert_allclose(again.pixels[0], np.rot90(given.pixels[0], -1), atol=0.01)


def test_bmp_says_what_it_loses():
    image = replace(smooth(), exif=exif_block(), xmp=XMP, icc_profile=b"\0" * 16 + b"RGB ", texts=(("Author", "I"),))
    assert lost(".bmp", image) == [
        "its EXIF block",
        "its XMP packet",
        "the description of its colours",
        "its text Author",
    ]
