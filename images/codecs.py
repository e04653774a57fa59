"""Bytes of an image file to a picture and back, with no file system in it.

Three libraries share the work, each where it is exact. PNG goes through ``imagecodecs`` (libpng):
Pillow cuts 16-bit colour PNG to 8 bit, imagecodecs keeps it, expands palettes, low bit depths and
tRNS, and refuses truncated or damaged data. TIFF goes through ``tifffile`` (which uses imagecodecs
for LZW, Deflate, ...) for the same reason; Pillow only reads its 8-bit forms, of which there are
many, and JPEG, WebP and BMP. imagecodecs is less than half the size of OpenCV, the usual
alternative, and raises where OpenCV prints a warning.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.Image import Image as PillowImage

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "Image", "Refused", "decode", "encode"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes that folders are searched for and that can be written, in lower case."""

MAX_PIXELS = 178_956_970
"""Largest H * W that is read: the point where Pillow, too, assumes a decompression bomb."""

_BAND = 64
"""Rows that are turned into samples at a time."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_END = 33  # signature and IHDR
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXIF_PREFIX = b"Exif\0\0"
_JPEG_EXIF_LIMIT = 65533  # a marker segment is at most 65535 bytes, its length field included
_PROFILE_LIMIT = 1 << 26  # bytes; a larger ICC profile in a PNG is an attack
_TOO_LARGE = "Cut it into pieces."
_ORIENTATION = 274
# ImageDescription, Make, Model, Orientation, Software, DateTime, Artist, Copyright: the tags of a
# TIFF directory that describe the picture and not the layout of the file.
_TIFF_TAGS = (270, 271, 272, _ORIENTATION, 305, 306, 315, 33432)
_TIFF_DIRECTORIES = (0x8769, 0x8825)  # Exif and GPS


class Refused(Exception):
    """A sound file that is not taken; the message completes "Cannot use FILE: ...".

    Args:
        reason: Why it is not taken.
        fix: What the user can do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


@dataclass(frozen=True, eq=False)
class Image:
    r"""One still picture and what has to travel with it.

    Attributes:
        pixels: float32 [C, H, W] in 0..1, C = 1 (grey) or 3 (RGB), in the file's own encoding
            (gamma is neither removed nor added) and orientation (the EXIF tag is not applied).
        alpha: Opacity, float32 [1, H, W] in 0..1, not multiplied into `pixels`; None if opaque.
        bit_depth: 8 or 16 bits a sample: what the file had, and what `write_image` aims for.
        exif: EXIF block, ``b"Exif\0\0"`` and then a TIFF structure; None if there is none.
        icc_profile: ICC colour profile of `pixels`; None if there is none.

    Raises:
        ValueError: A shape, dtype or bit depth is not one of the above.
    """

    pixels: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32] | None = None
    bit_depth: int = 8
    exif: bytes | None = None
    icc_profile: bytes | None = None

    def __post_init__(self) -> None:
        """Check shapes, dtypes and bit depth."""
        shape = self.pixels.shape
        if self.pixels.dtype != np.float32 or len(shape) != 3 or shape[0] not in (1, 3):
            found = f"{self.pixels.dtype} {list(shape)}"
            raise ValueError(f"pixels must be float32 [1 or 3, H, W], not {found}")
        if 0 in shape:
            raise ValueError(f"pixels must not be empty, shape {list(shape)}")
        alpha = self.alpha
        if alpha is not None and (alpha.dtype != np.float32 or alpha.shape != (1, *shape[1:])):
            found = f"{alpha.dtype} {list(alpha.shape)}"
            raise ValueError(f"alpha must be float32 {[1, *shape[1:]]}, not {found}")
        if self.bit_depth not in (8, 16):
            raise ValueError(f"bit_depth must be 8 or 16, not {self.bit_depth}")


def decode(data: bytes) -> Image:
    """Turn the bytes of a PNG, JPEG, TIFF, WebP or BMP file into a picture.

    Args:
        data: The whole file.

    Raises:
        Refused: It is sound, but too large, several pictures, or of an unusual sample type.
        Exception: Whatever the libraries raise for damaged data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what concerns pixels is raised; the rest is metadata
        if data.startswith(_PNG_SIGNATURE):
            return _decode_png(data)
        if data.startswith(_TIFF_SIGNATURES):
            return _decode_tiff(data)
        return _decode_with_pillow(data, ("JPEG", "WEBP", "BMP"))


def encode(suffix: str, image: Image) -> bytes:
    """Turn a picture with finite values into the bytes of a file.

    Args:
        suffix: One of `IMAGE_SUFFIXES`.
        image: The picture; its samples are clamped to 0..1 and rounded to nearest.

    Raises:
        Exception: Whatever the libraries raise when the picture does not fit the format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged EXIF only
        if suffix == ".png":
            return _encode_png(image)
        if suffix in (".tif", ".tiff"):
            return _encode_tiff(image)
        return _encode_with_pillow(suffix, image)


def _from_samples(samples: npt.NDArray[Any], exif: bytes | None, icc_profile: bytes | None) -> Image:
    """A picture from uint8 or uint16 [H, W] or [H, W, 1..4], alpha last if the count is even."""
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if exif:
        exif = _EXIF_PREFIX + exif.removeprefix(_EXIF_PREFIX)
    bits = 8 * samples.dtype.itemsize
    planes = samples.transpose(2, 0, 1).astype(np.float32, order="C")
    planes /= np.float32(2**bits - 1)
    alpha = None
    if len(planes) % 2 == 0:
        planes, alpha = planes[:-1], planes[-1:]
    return Image(planes, alpha, bits, exif or None, icc_profile or None)


def _to_samples(image: Image, bits: int) -> npt.NDArray[Any]:
    """The picture as uint8 or uint16 [H, W, C], alpha last."""
    planes = [image.pixels] if image.alpha is None else [image.pixels, image.alpha]
    _, height, width = image.pixels.shape
    samples = np.empty((height, width, sum(map(len, planes))), np.uint8 if bits == 8 else np.uint16)
    for top in range(0, height, _BAND):  # a large picture has no room for a second one in float32
        band = np.concatenate([plane[:, top : top + _BAND] for plane in planes])
        scaled = np.rint(np.clip(band, 0, 1) * np.float32(2**bits - 1))
        samples[top : top + _BAND] = scaled.transpose(1, 2, 0)
    return samples


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Refused(f"{width}x{height} is over the limit of {MAX_PIXELS} pixels", _TOO_LARGE)


def _check_single(pictures: int) -> None:
    if pictures > 1:
        raise Refused(
            f"it holds {pictures} pictures or frames, and only still images are read",
            "Split it into single images.",
        )


def _fitting_profile(image: Image) -> bytes | None:
    """The ICC profile, if its colour space (ICC.1:2022, header bytes 16..19) is the picture's."""
    space = b"GRAY" if len(image.pixels) == 1 else b"RGB "
    profile = image.icc_profile
    return profile if profile is not None and profile[16:20] == space else None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of every chunk of a PNG (W3C PNG, section 5.3)."""
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        yield data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        start += length + 12


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _decode_png(data: bytes) -> Image:
    import imagecodecs

    _check_size(*struct.unpack_from(">II", data, 16))
    exif = profile = None
    for kind, content in _png_chunks(data):
        if kind == b"acTL":
            _check_single(struct.unpack_from(">I", content)[0])
        elif kind == b"eXIf":
            exif = content
        elif kind == b"iCCP":  # name, zero byte, method byte, zlib stream
            packed = content.partition(b"\0")[2][1:]
            profile = zlib.decompressobj().decompress(packed, _PROFILE_LIMIT)
    return _from_samples(imagecodecs.png_decode(data), exif, profile)


def _encode_png(image: Image) -> bytes:
    import imagecodecs

    data = bytes(imagecodecs.png_encode(_to_samples(image, image.bit_depth)))
    chunks = b""
    profile = _fitting_profile(image)
    if profile is not None:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if image.exif is not None:
        chunks += _png_chunk(b"eXIf", image.exif.removeprefix(_EXIF_PREFIX))
    return data[:_PNG_HEADER_END] + chunks + data[_PNG_HEADER_END:]


def _decode_with_pillow(data: bytes, formats: tuple[str, ...], exif: bytes = b"") -> Image:
    from PIL import Image as pillow

    try:
        opened = pillow.open(BytesIO(data), formats=formats)
    except pillow.DecompressionBombError:
        raise Refused(f"it is over the limit of {MAX_PIXELS} pixels", _TOO_LARGE) from None
    with opened:
        _check_size(*opened.size)
        if opened.format == "WEBP":
            _check_single(getattr(opened, "n_frames", 1))
        if opened.mode.startswith("I") or opened.mode == "F":
            raise Refused(f"its samples are of type {opened.mode}", "Save it with 8 or 16 bits.")
        profile = None if opened.mode in ("CMYK", "LAB") else opened.info.get("icc_profile")
        exif = exif or opened.info.get("exif") or b""
        grey = opened.mode in ("1", "L", "LA", "La")
        mode = ("LA" if grey else "RGBA") if opened.has_transparency_data else "L" if grey else "RGB"
        return _from_samples(np.asarray(opened.convert(mode)), exif, profile)


def _encode_with_pillow(suffix: str, image: Image) -> bytes:
    from PIL import Image as pillow

    if suffix in (".jpg", ".jpeg", ".bmp") and image.alpha is not None:
        image = _on_white(image)
    samples = _to_samples(image, 8)
    if suffix == ".webp" and samples.shape[2] < 3:  # WebP knows no grey
        samples = samples[:, :, [0, 0, 0, *range(1, samples.shape[2])]]
    picture: PillowImage = pillow.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    formats: dict[str, dict[str, Any]] = {
        ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
        ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
        ".webp": {"format": "WEBP", "lossless": True, "exact": True},
        ".bmp": {"format": "BMP"},
    }
    options = formats[suffix]
    if suffix != ".bmp":
        exif = image.exif or b""
        if options["format"] == "JPEG" and len(exif) > _JPEG_EXIF_LIMIT:
            exif = _only(_parse_exif(exif), (_ORIENTATION,))
        options["exif"] = exif
        options["icc_profile"] = _fitting_profile(image)
    stream = BytesIO()
    picture.save(stream, **options)
    return stream.getvalue()


def _on_white(image: Image) -> Image:
    """The picture over a white page, opaque (Porter and Duff 1984, "over")."""
    assert image.alpha is not None
    pixels = np.clip(image.pixels, 0, 1)
    pixels = 1 + (pixels - 1) * np.clip(image.alpha, 0, 1)
    return Image(pixels, None, image.bit_depth, image.exif, image.icc_profile)


def _decode_tiff(data: bytes) -> Image:
    import tifffile

    stream = BytesIO(data)
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        full = [other for other in file.pages if not getattr(other, "is_reduced", False)]
        _check_single(len(full))
        if page.is_reduced:
            raise Refused("its first picture is only a preview", "Convert it to PNG.")
        _check_size(page.imagewidth, page.imagelength)
        exif = _only(_parse_exif(_EXIF_PREFIX + data), _TIFF_TAGS, _TIFF_DIRECTORIES)
        if page.bitspersample <= 8:
            if _ORIENTATION in page.tags:  # Pillow turns the pixels of a TIFF, and only of a TIFF
                page.tags[_ORIENTATION].overwrite(1)
            return _decode_with_pillow(stream.getvalue(), ("TIFF",), exif)
        kind = tifffile.PHOTOMETRIC(page.photometric)
        usual = kind in (kind.MINISBLACK, kind.MINISWHITE, kind.RGB) and page.imagedepth == 1
        if page.dtype != np.uint16 or not usual:
            raise Refused(
                f"its samples are {page.dtype or page.bitspersample}, {kind.name}",
                "Save it as grey or RGB with 8 or 16 bits.",
            )
        samples = page.asarray()
        if samples.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            samples = samples.transpose(1, 2, 0)
        samples = samples.reshape(page.imagelength, page.imagewidth, -1)
        colours = 3 if kind == kind.RGB else 1
        extra = page.extrasamples[0] if page.extrasamples else tifffile.EXTRASAMPLE.UNSPECIFIED
        samples = samples[:, :, : colours + (extra != tifffile.EXTRASAMPLE.UNSPECIFIED)]
        if kind == kind.MINISWHITE:
            samples = np.concatenate([65535 - samples[:, :, :1], samples[:, :, 1:]], axis=2)
        image = _from_samples(samples, exif, page.tags.valueof(34675))
    if extra == tifffile.EXTRASAMPLE.ASSOCALPHA and image.alpha is not None:
        opaque = np.maximum(image.alpha, np.float32(1 / 65535))
        image = replace(image, pixels=np.minimum(image.pixels / opaque, np.float32(1)))
    return image


def _encode_tiff(image: Image) -> bytes:
    import tifffile

    exif = _parse_exif(_only(_parse_exif(image.exif), _TIFF_TAGS))
    tags: list[tuple[int, str, int, Any, bool]] = []
    for code, value in exif.items():
        if isinstance(value, str):
            tags.append((code, "s", 0, value.encode("latin-1", "replace"), True))
        elif isinstance(value, int):
            tags.append((code, "H", 1, value, True))
    samples = _to_samples(image, image.bit_depth)
    stream = BytesIO()
    tifffile.imwrite(
        stream,
        samples[:, :, 0] if samples.shape[2] == 1 else samples,
        photometric="rgb" if len(image.pixels) == 3 else "minisblack",
        planarconfig="contig" if samples.shape[2] > 1 else None,
        extrasamples=None if image.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        metadata=None,
        software=False,
        iccprofile=_fitting_profile(image),
        extratags=tags,
    )
    return stream.getvalue()


def _parse_exif(exif: bytes | None) -> Exif:
    """The tags of an EXIF block; none if it is absent or damaged."""
    from PIL import Image as pillow

    parsed = pillow.Exif()
    try:
        parsed.load(exif or b"")
        list(parsed.items())
    except Exception:  # struct.error, SyntaxError, KeyError, ...: metadata never stops a picture
        return pillow.Exif()
    return parsed


def _only(exif: Exif, tags: tuple[int, ...], directories: tuple[int, ...] = ()) -> bytes:
    """An EXIF block with these tags and directories of another, as far as they are sound."""
    from PIL import Image as pillow

    kept = pillow.Exif()
    for tag in (*tags, *directories):
        with suppress(Exception):  # struct.error, SyntaxError, KeyError, ...
            value = dict(exif.get_ifd(tag)) if tag in directories else exif.get(tag)
            if isinstance(value, str):  # read as Latin-1 by Pillow, but written as ASCII
                value = value.encode("latin-1", "replace")
            trial = pillow.Exif()
            trial[tag] = value
            if value and trial.tobytes():
                kept[tag] = value
    return kept.tobytes() if len(kept) else b""
