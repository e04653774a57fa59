"""One picture through a runner: colour, grey, alpha and 16 bits in, the same out; or all bands of a spectral one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.runner import Images, Runner
from ..errors import AgileIRError, EnvironmentProblem
from ..images.files import (
    MAX_PIXELS,
    Image,
    check_finite,
    decoded,
    encoded,
    encoding_bytes,
    read_image,
    sample_bits,
    write_image,
)
from ..images.metadata import rescaled
from ..images.picture import quantised, to_channels
from ..images.resizing import resize_bicubic
from ..images.spectral import (
    SpectralImage,
    decoded_spectral,
    encoded_spectral,
    read_spectral,
    rescaled_spectral,
    write_spectral,
)
from ..images.transparency import visible_colour
from ..models.spec import ModelSpec
from .out_of_memory import is_out_of_memory
from .tiled_runner import TiledRunner
from .tiling import Part

__all__ = [
    "Picture",
    "Restored",
    "decode_picture",
    "encode_picture",
    "is_spectral",
    "read_picture",
    "restore_image",
    "restore_picture",
    "restore_spectral",
    "size_of",
    "write_picture",
]

Picture = Image | SpectralImage


@dataclass(frozen=True)
class Restored:
    """One restored file.

    Attributes:
        source: The picture read.
        output: The picture written.
        size_in: (rows, columns) read.
        size_out: (rows, columns) written.
        seconds: Time in the runner.
    """

    source: Path
    output: Path
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    seconds: float


def restore_image(runner: Runner, image: Image, bits: int | None = None, beside: int = 0) -> Image:
    """Restores one picture; alpha is resized bicubically, bit depth, EXIF and profile are kept.

    Colours under full transparency are those of the nearest visible pixel before the network sees them, and the number
    of pixels an inch grows with the picture.

    A grey picture goes through a colour model as three equal channels and comes back as their luma; a colour picture
    goes through a grey model channel by channel.

    Args:
        runner: What restores.
        image: The picture.
        bits: 8 or 16 for a result in samples of as many bits, tile by tile: a large one takes much more in float32.
        beside: Bytes that will be taken for the result's file, for which a `TiledRunner` leaves room. The picture is
            to be let go of by then.

    Raises:
        OutputError: The result is to be samples, and has values that are NaN or infinite.
        EnvironmentProblem: The picture needs more memory than there is.
    """
    scale, channels = runner.spec.scale, runner.spec.channels
    pixels = visible_colour(image.pixels, image.alpha)
    by_channel = channels == 1 < len(pixels)
    batch = pixels[:, None] if by_channel else np.broadcast_to(pixels, (channels, *pixels.shape[1:]))[None]
    batch = np.ascontiguousarray(batch)
    height, width = pixels.shape[1:]
    shape = (height * scale, width * scale, len(pixels))
    kind = np.float32 if bits is None else np.uint8 if bits == 8 else np.uint16
    restored = np.empty(shape if bits else (shape[2], *shape[:2]), kind)  # the order that codecs want
    if bits:
        restored = restored.transpose(2, 0, 1)
    for top, left, part in _parts(runner, batch, restored.nbytes + max(0, beside - batch.nbytes)):
        one = part[:, 0] if by_channel else part[0]
        if len(one) > len(pixels):
            one = to_channels(one, 1)
        place = restored[:, top : top + one.shape[1], left : left + one.shape[2]]
        if bits:
            check_finite(one, "The picture cannot be restored: ")
            place[...] = quantised(one, bits)
        else:
            np.clip(one, 0, 1, out=place)
    alpha = None if image.alpha is None else np.clip(resize_bicubic(image.alpha, scale), 0, 1)
    return rescaled(image, restored, alpha)


def restore_spectral(runner: Runner, image: SpectralImage) -> SpectralImage:
    """Restores a picture of as many bands as the model takes; values are not clamped.

    Raises:
        OutputError: The result has values that are NaN or infinite.
        EnvironmentProblem: The picture needs more memory than there is.
    """
    channels, height, width = image.pixels.shape
    scale = runner.spec.scale
    restored = np.empty((channels, height * scale, width * scale), np.float32)
    for top, left, part in _parts(runner, image.pixels[None], 3 * restored.nbytes):  # samples and file, too
        restored[:, top : top + part.shape[2], left : left + part.shape[3]] = part[0]
    check_finite(restored, "The picture cannot be restored: ")
    return rescaled_spectral(image, restored)


def _parts(runner: Runner, batch: Images, beside: int) -> Iterable[Part]:
    """What a runner makes of images, in finished parts.

    Raises:
        EnvironmentProblem: There is not enough memory.
    """
    try:
        if isinstance(runner, TiledRunner):
            yield from runner.parts(batch, beside)
        else:
            yield 0, 0, runner.run(batch)
    except AgileIRError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        height, width = batch.shape[2:]
        raise EnvironmentProblem(
            f"A picture of {height}x{width} pixels needs more memory than there is.",
            fix="Restore it in smaller tiles (--tile), or use a machine with more memory.",
        ) from error


def is_spectral(spec: ModelSpec) -> bool:
    """Whether a model takes neither grey nor colour pictures, but TIFF files of its number of bands."""
    return spec.channels not in (1, 3)


def read_picture(source: Path, spec: ModelSpec) -> Picture:
    """The picture of a file as a model takes it.

    Raises:
        ImageError: It cannot be read, or has not the model's bands.
    """
    return read_spectral(source, spec.channels) if is_spectral(spec) else read_image(source)


def decode_picture(data: bytes, name: str, spec: ModelSpec, most: int = MAX_PIXELS) -> Picture:
    """`read_picture` of the bytes of a file.

    Args:
        data: The whole file.
        name: What errors call it.
        spec: The model's spec.
        most: Largest number of pixels; more are refused before they are unpacked.

    Raises:
        ImageTooLarge: It has more pixels.
        ImageError: It cannot be read, or has not the model's bands.
    """
    return decoded_spectral(data, name, spec.channels, most) if is_spectral(spec) else decoded(data, name, most)


def restore_picture(runner: Runner, picture: Picture, output: Path) -> Picture:
    """Restores a picture for a file, in the samples that the file will hold.

    Room is left for encoding it, once the picture that was read is let go of.

    Raises:
        OutputError: The result has values that are NaN or infinite.
        EnvironmentProblem: The picture needs more memory than there is.
    """
    if isinstance(picture, SpectralImage):
        return restore_spectral(runner, picture)
    suffix = output.suffix.lower()
    bits = sample_bits(suffix, picture)
    samples = picture.pixels.size * runner.spec.scale**2 * (bits or 8) // 8
    return restore_image(runner, picture, bits, encoding_bytes(suffix, samples))


def write_picture(output: Path, picture: Picture, overwrite: bool = False) -> None:
    """Writes a restored picture, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    if isinstance(picture, SpectralImage):
        write_spectral(output, picture, overwrite)
    else:
        write_image(output, picture, overwrite)


def encode_picture(output: Path, picture: Picture, quality: int | None = None) -> tuple[bytes, list[str]]:
    """What `write_picture` writes.

    Args:
        output: The file that it is for; its suffix is the format.
        picture: The restored picture.
        quality: See `images.files.encoded`.

    Returns:
        The bytes, and what of the picture they do not hold.

    Raises:
        OutputError: The picture does not go into the format.
    """
    if isinstance(picture, SpectralImage):
        return encoded_spectral(picture), []
    return encoded(output, picture, quality)


def size_of(picture: Picture) -> tuple[int, int]:
    """(rows, columns)."""
    return int(picture.pixels.shape[1]), int(picture.pixels.shape[2])
