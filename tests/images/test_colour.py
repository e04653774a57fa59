"""PNG's description of colours: carried to PNG, an ICC profile elsewhere, checked with LittleCMS."""

import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as pillow
from PIL import ImageCms

from agileir_export.images.codecs import decode, encode, lost
from agileir_export.images.colour import profile_of
from agileir_export.images.files import read_image, write_image

from .test_codecs import chunk, png, smooth

SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
LINEAR = (b"gAMA", struct.pack(">I", 100000))
FORMS = {
    "linear": (LINEAR,),
    "gamma and P3": ((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *P3))),
    "chromaticities": ((b"cHRM", struct.pack(">8I", *P3)),),
    "sRGB": ((b"sRGB", b"\0"),),
    "P3 by number": ((b"cICP", bytes([12, 13, 0, 1])),),
    "PQ": ((b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", bytes(24)), (b"cLLI", bytes(8))),
}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chunks", FORMS.values(), ids=list(FORMS))
def test_png_keeps_its_chunks(chunks, channels, bits):
    image = replace(smooth(channels), colour=chunks, bit_depth=bits)
    data = encode(".png", image)
    assert decode(data).colour == chunks
    assert all(data.index(kind) < data.index(b"IDAT") for kind, _ in chunks)
    assert lost(".png", image) == []


def test_the_chunks_of_a_hand_made_png_are_read():
    extra = chunk(*LINEAR) + chunk(b"sRGB", b"\1")
    assert decode(png(1, 1, 8, 0, b"\0\7", extra)).colour == (LINEAR, (b"sRGB", b"\1"))


def as_srgb(profile, values):
    """RGB values of 0..255 under a profile, as LittleCMS shows them in sRGB."""
    picture = pillow.fromarray(np.array([[values]], np.uint8))
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(picture, source, target, renderingIntent=1, outputMode="RGB")
    return np.asarray(shown)[0, 0].astype(int).tolist()


def srgb_encoded(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def linear_of(encoded):
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def primaries(numbers):
    """RGB to XYZ, from chromaticities (SMPTE RP 177)."""
    xy = np.array(numbers).reshape(4, 2) / 100000
    points = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    return points[:, 1:] * np.linalg.solve(points[:, 1:], points[:, 0])


@pytest.mark.parametrize("values", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (128, 110, 100), (60, 90, 70)])
@pytest.mark.parametrize(
    ("form", "curve", "space"),
    [
        ("linear", lambda v: v, SRGB),
        ("gamma and P3", lambda v: v**2.2, P3),
        ("chromaticities", linear_of, P3),
        ("sRGB", linear_of, SRGB),
        ("P3 by number", linear_of, P3),
    ],
)
def test_a_profile_shows_the_same_colours(form, curve, space, values):
    profile = profile_of(FORMS[form], 3)
    linear = np.linalg.inv(primaries(SRGB)) @ primaries(space) @ curve(np.array(values) / 255)
    wanted = np.rint(255 * np.clip(srgb_encoded(linear), 0, 1))
    np.testing.assert_allclose(as_srgb(profile, values), wanted, atol=1.5)


def test_a_grey_profile_has_the_curve():
    profile = profile_of((LINEAR,), 1)
    assert profile[16:20] == b"GRAY"
    picture, source = pillow.new("L", (1, 1), 128), ImageCms.ImageCmsProfile(BytesIO(profile))
    shown = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert abs(shown.getpixel((0, 0))[0] - 188) <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_other_formats_get_a_profile(tmp_path, suffix, channels):
    image = replace(smooth(channels), colour=(LINEAR,))
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    assert again.icc_profile == profile_of((LINEAR,), 3 if suffix == ".webp" else channels)
    assert lost(suffix, image) == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".bmp"])
def test_what_no_profile_holds_is_said(tmp_path, caplog, suffix):
    caplog.set_level("INFO")
    write_image(tmp_path / f"a{suffix}", replace(smooth(), colour=FORMS["PQ"]))
    assert "without the description of its colours" in caplog.text
    assert read_image(tmp_path / f"a{suffix}").icc_profile is None


@pytest.mark.parametrize(
    "chunks",
    [
        ((b"gAMA", b"\0"),),
        ((b"gAMA", bytes(4)),),
        ((b"cHRM", bytes(32)),),
        ((b"cHRM", struct.pack(">8I", *[5] * 8)),),
        ((b"cICP", b""),),
        ((b"cICP", b"\1"),),
    ],
)
def test_damaged_chunks_stop_no_picture(chunks):
    image = replace(smooth(), colour=chunks)
    for suffix in (".png", ".jpg", ".tif"):
        assert decode(encode(suffix, image)).pixels.shape == image.pixels.shape
