"""GIF, AVIF and JPEG 2000: read where the libraries do it well, refused in true words elsewhere."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from PIL import Image as pillow
from PIL import features

from agileir_export.images.codecs import decode
from agileir_export.images.picture import Refused

avif = pytest.mark.skipif("avif" not in features.get_supported_modules(), reason="this Pillow has no AVIF")


def colours(dtype=np.uint8, top=255, channels=3):
    rows, columns = np.mgrid[0:40, 0:64] / 64
    return np.rint(np.stack([columns, rows, 1 - columns, rows / 2 + 0.4][:channels], -1) * top).astype(dtype)


def saved(image, form, **options):
    stream = BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def test_gif_with_and_without_transparency():
    indices = pillow.new("P", (3, 2))
    indices.putpalette([10, 20, 30, 200, 100, 50])
    indices.putpixel((1, 0), 1)
    image = decode(saved(indices, "GIF"))
    assert np.rint(image.pixels[:, 0, :2] * 255).T.tolist() == [[10, 20, 30], [200, 100, 50]]
    assert image.alpha is None
    image = decode(saved(indices, "GIF", transparency=1))
    assert image.alpha[0].tolist() == [[1, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("form", ["GIF", pytest.param("AVIF", marks=avif)])
def test_moving_pictures_are_refused(form):
    first, second = pillow.new("RGB", (16, 16)), pillow.new("RGB", (16, 16), "red")
    with pytest.raises(Refused, match="2 pictures"):
        decode(saved(first, form, save_all=True, append_images=[second]))


@avif
@pytest.mark.parametrize("channels", [3, 4])
def test_avif_with_its_metadata(channels):
    exif = pillow.Exif()
    exif[274] = 6
    source = pillow.fromarray(colours(channels=channels))
    image = decode(saved(source, "AVIF", quality=100, exif=exif, xmp=b"<x/>", icc_profile=b"\0" * 128))
    np.testing.assert_allclose(image.pixels, colours().transpose(2, 0, 1) / 255, atol=0.03)
    assert (image.alpha is not None) == (channels == 4)
    assert image.xmp == b"<x/>" and image.exif and image.icc_profile


@avif
@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_becomes_16_bits(bits):
    top = 2**bits - 1
    image = decode(imagecodecs.avif_encode(colours(np.uint16, top), bitspersample=bits, level=100))
    assert image.bit_depth == 16
    np.testing.assert_allclose(image.pixels, colours(np.uint16, top).transpose(2, 0, 1) / top, atol=0.01)


@avif
def test_the_colours_of_an_avif_by_number_become_a_chunk():
    data = bytearray(imagecodecs.avif_encode(colours(), level=100))
    place = data.index(b"colrnclx") + 8
    for numbers, wanted in (((9, 16), ((b"cICP", b"\x09\x10\0\1"),)), ((1, 13), ()), ((2, 2), ())):
        data[place : place + 4] = bytes([0, numbers[0], 0, numbers[1]])
        assert decode(bytes(data)).colour == wanted


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16)])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_keeps_every_bit(codec, dtype, bits, channels):
    samples = colours(dtype, 2**bits - 1, channels)
    given = samples if channels == 3 else samples[:, :, 0]
    options = {"level": 0, "codecformat": codec, "reversible": True, "bitspersample": bits}
    image = decode(imagecodecs.jpeg2k_encode(given, **options))
    assert image.bit_depth == (8 if bits == 8 else 16)
    np.testing.assert_array_equal(np.rint(image.pixels * (2**bits - 1)), samples.transpose(2, 0, 1))


def test_jpeg_2000_with_transparency_of_pillow():
    data = saved(pillow.fromarray(colours(channels=4)), "JPEG2000")
    image = decode(data)
    np.testing.assert_array_equal(np.rint(image.alpha * 255)[0], colours(channels=4)[:, :, 3])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("form", ["GIF", "JPEG2000", pytest.param("AVIF", marks=avif)])
def test_a_truncated_file_is_no_picture(form, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = saved(pillow.fromarray(noise), form)
    with pytest.raises(Exception) as caught:
        decode(data[: int(len(data) * share)])
    assert not isinstance(caught.value, Refused)


def test_other_colours_of_jpeg_2000_are_refused():
    data = bytearray(saved(pillow.fromarray(colours()), "JPEG2000"))
    data[data.index(b"colr") + 10] = 18  # sYCC
    with pytest.raises(Refused, match="unusual colours"):
        decode(bytes(data))
