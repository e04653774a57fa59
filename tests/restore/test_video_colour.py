"""Colours of video: codes to R'G'B' against the definition, and back to the same codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from agileir_export.errors import Unsupported
from agileir_export.restore.video import VideoOptions, restore_video
from agileir_export.restore.video.colour import Colour, colour_of, from_rgb, to_rgb
from agileir_export.restore.video.frames import FrameReader, FrameWriter, like, samples_of

from .clips import Nearest, clip, look

KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
MATRICES = [pytest.param(1, id="bt709"), pytest.param(6, id="bt601"), pytest.param(9, id="bt2020")]
RANGES = [pytest.param(False, id="limited"), pytest.param(True, id="full")]


def codes_of(rgb: Any, matrix: int, full: bool, bits: int) -> tuple[float, ...]:
    """Y', Cb, Cr of one colour in double precision; ITU-T H.273, equations 38 to 51."""
    kr, kb = KR_KB[matrix]
    luma = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
    chroma = 0.5 * (rgb[2] - luma) / (1 - kb), 0.5 * (rgb[0] - luma) / (1 - kr)
    if full:
        return luma * (2**bits - 1), *(part * (2**bits - 1) + 2 ** (bits - 1) for part in chroma)
    unit = 2 ** (bits - 8)
    return (219 * luma + 16) * unit, *((224 * part + 128) * unit for part in chroma)


def patch(kind: str, codes: list[int], matrix: int, full: bool) -> Any:
    """A frame of one colour."""
    made = av.VideoFrame(32, 24, kind)
    made.colorspace, made.color_range = matrix, 2 if full else 1
    for plane, code in zip(made.planes, codes, strict=True):
        np.frombuffer(plane, np.uint8 if made.format.components[0].bits == 8 else np.uint16)[:] = code
    return made


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full", RANGES)
@pytest.mark.parametrize(("kind", "bits"), [("yuv420p", 8), ("yuv422p10le", 10), ("yuv444p", 8), ("yuv444p12le", 12)])
def test_patches_against_the_definition(kind: str, bits: int, full: bool, matrix: int) -> None:
    for rgb in np.random.default_rng(0).uniform(0.02, 0.98, (8, 3)):
        codes = [round(code) for code in codes_of(rgb, matrix, full, bits)]
        source = patch(kind, codes, matrix, full)
        colour = colour_of(source)
        assert (colour.matrix, colour.full, colour.depth) == (matrix, full, bits)
        pixels = FrameReader(colour)(source)
        assert pixels.shape == (3, 24, 32) and pixels.dtype == np.float32
        rounding = 1.5 / (2**bits - 1) * (1 if full else 256 / 219)  # codes are whole numbers
        assert np.abs(pixels - rgb[:, None, None]).max() <= rounding
        back = FrameWriter(kind, colour, (32, 24))(pixels, source)
        assert back is not source
        assert [int(plane.min()) for plane in samples_of(back)] == codes
        assert [int(plane.max()) for plane in samples_of(back)] == codes


@pytest.mark.parametrize(
    ("kind", "bits", "full"),
    [("gray", 8, True), ("gray", 8, False), ("gray10le", 10, True), ("gbrp", 8, True), ("gbrp10le", 10, True)],
)
def test_grey_and_rgb_are_exact(kind: str, bits: int, full: bool) -> None:
    matrix, codes = (1, [100]) if "gray" in kind else (0, [200, 10, 100])
    source = patch(kind, codes, matrix, full)
    pixels = FrameReader(colour_of(source))(source)
    top, black = (2**bits - 1, 0) if full else (219, 16)
    ordered = codes if "gray" in kind else [codes[2], codes[0], codes[1]]
    np.testing.assert_allclose(pixels[:, 3, 4], [(code - black) / top for code in ordered], atol=1e-6)
    back = FrameWriter(kind, colour_of(source), (32, 24))(pixels, source)
    assert [int(plane[5, 6]) for plane in samples_of(back)] == codes


@pytest.mark.parametrize(
    ("packed", "planar"),
    [
        *(("nv12", "yuv420p"), ("p010le", "yuv420p10le"), ("rgb24", "gbrp"), ("bgra", "gbrp"), ("ya8", "gray")),
        *(("yuvj422p", "yuv422p"), ("yuva444p10le", "yuv444p10le"), ("yuv411p", "yuv411p"), ("y210le", "yuv422p10le")),
    ],
)
def test_formats_that_hold_the_same(packed: str, planar: str) -> None:
    source = av.VideoFrame(32, 24, planar)
    rng = np.random.default_rng(1)
    for plane in samples_of(source):
        plane[...] = rng.integers(64, 192, plane.shape)
    source.color_range = 2 if planar[0] == "g" or "j" in packed else 1
    assert like(av.VideoFormat(packed)) == planar
    words: dict[str, Any] = {"src_color_range": 2, "dst_color_range": 2} if "j" in packed else {}
    other = source.reformat(format=packed, interpolation="POINT", **words)
    other.color_range = source.color_range
    one, two = (FrameReader(colour_of(frame))(frame) for frame in (source, other))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_all_codes_come_back() -> None:
    """Of those whose colour is within R'G'B'."""
    for matrix in KR_KB:
        for full in (False, True):
            colour = Colour(matrix, full, 8)
            rgb = np.stack(np.meshgrid(*[np.linspace(0, 1, 24, dtype=np.float32)] * 3)).reshape(3, 24, -1)
            codes = from_rgb(rgb, colour) >> 8 << 8
            again = from_rgb(to_rgb(codes, colour), colour)
            inside = ((to_rgb(codes, colour) > 0) & (to_rgb(codes, colour) < 1)).all(0)
            assert np.abs(again.astype(int) - codes)[:, inside].max() <= 1
            assert inside.mean() > 0.5


def test_white_is_white_in_every_range() -> None:
    for depth in (8, 10, 16):
        for full in (False, True):
            colour = Colour(1, full, depth)
            codes = from_rgb(np.ones((3, 1, 1), np.float32), colour)
            top = (2**depth - 1 if full else 235 * 2 ** (depth - 8)) * 2 ** (16 - depth)
            assert abs(int(codes[0, 0, 0]) - top) <= 1 and set(codes[1:].ravel()) == {32768}
            np.testing.assert_allclose(to_rgb(codes, colour), 1, atol=2e-5)


def test_what_is_guessed() -> None:
    def told(width: int, height: int, kind: str = "yuv420p") -> Colour:
        return colour_of(av.VideoFrame(width, height, kind))

    assert [told(*size).matrix for size in ((720, 576), (1280, 720), (640, 578))] == [6, 1, 1]
    assert [told(32, 24, kind).full for kind in ("yuv420p", "yuvj420p", "gray", "rgb24")] == [False, True, True, True]
    assert told(32, 24, "rgb24").matrix == told(32, 24, "pal8").matrix == 0


def test_a_matrix_that_is_none() -> None:
    frame = av.VideoFrame(32, 24, "yuv420p10le")
    frame.colorspace = 10
    with pytest.raises(Unsupported, match="matrix 10"):
        colour_of(frame)


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_chroma_is_taken_where_it_lies(location: str, tmp_path: Path) -> None:
    """A ramp of chroma comes out as the same ramp, at luma's places."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        film = out.add_stream("libx264", rate=10, options={"crf": "0", "chroma_sample_location": location})
        film.codec_context.width, film.codec_context.height, film.codec_context.colorspace = 64, 48, 1
        made = patch("yuv420p", [128, 128, 128], 1, False).reformat(width=64, height=48)
        samples_of(made)[1][...] = 64 + 4 * np.arange(32)
        out.mux([*film.encode(made), *film.encode(None)])
    with av.open(str(source)) as found:
        frame = next(found.decode(video=0))
    pixels = FrameReader(colour_of(frame))(frame)
    blue = (pixels[2] - 112 / 219)[24, 20:40] * 224 / (2 * (1 - 0.0722)) + 128
    shift = 0.5 if location == "center" else 0
    np.testing.assert_allclose(blue, 64 + 2 * (np.arange(20, 40) - shift), atol=0.3)


@pytest.mark.parametrize("matrix", MATRICES[:2])
@pytest.mark.parametrize("full", RANGES)
def test_patches_through_files(matrix: int, full: bool, tmp_path: Path) -> None:
    """Flat colours through an encoder without loss, as a player reads them."""
    tags = (1, 1, matrix, 2 if full else 1)
    source = clip(tmp_path / "in.mkv", seconds=0.5, codec="ffv1", tags=tags)
    colours = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.5, 0.5, 0.5], [0.95, 0.9, 0.2]])
    with av.open(str(source), "w") as out:
        film = out.add_stream("ffv1", rate=10)
        context = film.codec_context
        context.width, context.height, context.pix_fmt = 32, 24, "yuv420p"
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        for number, rgb in enumerate(colours):
            made = patch("yuv420p", [round(code) for code in codes_of(rgb, matrix, full, 8)], matrix, full)
            made.pts = number
            out.mux(film.encode(made))
        out.mux(film.encode(None))
    restore_video(Nearest(2), source, tmp_path / "out.mkv", VideoOptions(codec="ffv1"))
    before, after = look(source), look(tmp_path / "out.mkv")
    assert after.tags == before.tags == tags
    for one, other, rgb in zip(before.frames, after.frames, colours, strict=True):
        codes = [int(plane[0, 0]) for plane in samples_of(one)]
        for plane, code in zip(samples_of(other), codes, strict=True):
            assert (plane == code).all()
        shown = FrameReader(dataclasses.replace(colour_of(other)))(other)[:, 0, 0] * 255
        assert np.abs(shown - rgb * 255).max() <= 2
