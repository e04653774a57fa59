"""Picture files through a runner: colour, grey, alpha and 16 bits in, the same out."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.runner import Images, Runner
from ..errors import AgileIRError, EnvironmentProblem, OutputError
from ..files import check_output
from ..images.files import (
    IMAGE_SUFFIXES,
    LARGEST_SIDE,
    READ_SUFFIXES,
    Image,
    check_finite,
    check_side,
    encoding_bytes,
    list_images,
    read_image,
    read_size,
    sample_bits,
    write_image,
)
from ..images.metadata import rescaled
from ..images.picture import quantised
from ..images.resizing import resize_bicubic
from ..images.transparency import visible_colour
from ..parity.images import to_channels
from ..progress import Progress, silent
from .out_of_memory import is_out_of_memory
from .seams import SEAM_PSNR
from .tiled_runner import Tile, TiledRunner
from .tiling import Part

__all__ = ["Restored", "plan_outputs", "restore_file", "restore_image", "restore_pictures", "restore_planned"]


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


def plan_outputs(images: Sequence[str | Path], output: str | Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """Pairs every picture with the file it is restored to, before any work is done.

    An `output` that is a file, or looks like one by its suffix, takes one picture. Any other is a folder, made if
    missing, in which every picture keeps its name; one of a format that is not written (GIF, AVIF, JPEG 2000) becomes
    a PNG (x.gif.png). A new folder whose name has a dot ends with a slash, or takes several pictures.

    Raises:
        ImageError: A path holds no picture.
        OutputError: A target exists (without `overwrite`), is its own source, is wanted twice, or cannot be written.
    """
    sources, target = list_images(images), Path(output)
    suffix = target.suffix.lower()
    named_file = suffix in IMAGE_SUFFIXES + READ_SUFFIXES or (len(sources) == 1 and suffix[1:].isalpha())
    named_folder = str(output).endswith(("/", os.sep))
    is_file = not target.is_dir() and (target.exists() or (named_file and not named_folder))
    if is_file and len(sources) > 1:
        raise OutputError(f"{len(sources)} pictures do not go into one file {target}.", fix="Name a folder.")
    pairs = [(source, target if is_file else target / _name_in_folder(source)) for source in sources]
    _check_pairs(pairs)
    if not is_file:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The folder {target} cannot be made: {error.strerror}.", fix="Choose another place."
            ) from error
    for _, file in pairs:
        check_output(file, overwrite)
    return pairs


def _name_in_folder(source: Path) -> str:
    """The name under which a picture is restored to a folder."""
    return f"{source.name}.png" if source.suffix.lower() in READ_SUFFIXES else source.name


def check_sizes(pairs: Sequence[tuple[Path, Path]], scale: int) -> None:
    """Says before any work that a restored picture will be too large for its format.

    Args:
        pairs: Pictures and their outputs, of `plan_outputs`.
        scale: How many times larger the restored pictures are.

    Raises:
        OutputError: A picture will not go into its format: WebP ends at 16383 pixels a side, JPEG at 65500.
    """
    for source, file in pairs:
        size = read_size(source) if file.suffix.lower() in LARGEST_SIDE else None
        if size is not None:
            check_side(file, size[0] * scale, size[1] * scale)


def _check_pairs(pairs: Sequence[tuple[Path, Path]]) -> None:
    """What is wrong with the targets by themselves, whatever lies there."""
    wanted: dict[Path, Path] = {}
    for source, file in pairs:
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            raise OutputError(
                f"{source} cannot be written as {file}: {file.suffix or 'no suffix'} names no image format.",
                fix="Name an output file that ends in one of " + " ".join(IMAGE_SUFFIXES) + ", or a folder that is "
                "there or ends with a slash.",
            )
        place = file.resolve()
        if place == source.resolve():
            raise OutputError(f"{source} would be replaced by its own restoration.", fix="Name another file or folder.")
        if place in wanted:
            raise OutputError(
                f"{source} and {wanted[place]} would both be written to {file}.",
                fix="Restore them one by one, or to different folders.",
            )
        wanted[place] = source


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
        beside: Bytes that will be taken for the result's file, for which a `TiledRunner` leaves room.

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
    try:
        parts = _parts(runner, batch, restored.nbytes + beside)
        for top, left, part in parts:
            one = part[:, 0] if by_channel else part[0]
            if len(one) > len(pixels):
                one = to_channels(one[:3], 1)
            place = restored[:, top : top + one.shape[1], left : left + one.shape[2]]
            if bits:
                check_finite(one, "The picture cannot be restored: ")
                place[...] = quantised(one, bits)
            else:
                np.clip(one, 0, 1, out=place)
    except AgileIRError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentProblem(
            f"A picture of {height}x{width} pixels needs more memory than there is.",
            fix="Restore it in smaller tiles (--tile), or use a machine with more memory.",
        ) from error
    alpha = None if image.alpha is None else np.clip(resize_bicubic(image.alpha, scale), 0, 1)
    return rescaled(image, restored, alpha)


def _parts(runner: Runner, batch: Images, beside: int) -> Iterable[Part]:
    """What a runner makes of images, in finished parts."""
    return runner.parts(batch, beside) if isinstance(runner, TiledRunner) else [(0, 0, runner.run(batch))]


def restore_file(runner: Runner, source: Path, output: Path, overwrite: bool = False) -> Restored:
    """Restores one file to another, written whole or not at all.

    Raises:
        ImageError: The picture cannot be read.
        OutputError: The output cannot be written.
        EnvironmentProblem: The picture needs more memory than there is.
    """
    image, suffix = read_image(source), output.suffix.lower()
    channels, height, width = image.pixels.shape
    size = height * runner.spec.scale, width * runner.spec.scale
    bits = sample_bits(suffix, image)
    start = time.perf_counter()
    samples = math.prod(size) * channels * (bits or 8) // 8
    image = restore_image(runner, image, bits, encoding_bytes(suffix, samples))
    seconds = time.perf_counter() - start
    write_image(output, image, overwrite)
    return Restored(source, output, (height, width), size, seconds)


def restore_pictures(
    runner: Runner,
    images: str | Path | Sequence[str | Path],
    output: str | Path,
    overwrite: bool = False,
    progress: Progress = silent,
    *,
    tile: Tile = "auto",
    overlap: int | None = None,
    seam_psnr: float = SEAM_PSNR,
) -> list[Restored]:
    """Restores picture files, or all pictures of folders, of any size.

    Args:
        runner: What restores, see `open_runner`.
        images: Picture or folder, or several.
        output: File for one picture, folder for several; see `plan_outputs`.
        overwrite: Whether existing files may be replaced.
        progress: Told each picture, and each tile.
        tile: ``"auto"`` restores whole what fits and cuts the rest into the largest tiles that do; ``"off"`` never
            cuts; or the greatest side of a tile, or its (rows, columns), in pixels of the picture.
        overlap: Pixels that neighbouring tiles share at least; None for the fewest that reach `seam_psnr`.
        seam_psnr: dB at the seams of tiles against the whole picture.

    Returns:
        What was restored, in order.

    Raises:
        InputError: The tile or the overlap cannot be.
        ImageError: A picture cannot be read.
        OutputError: An output cannot be written.
        EnvironmentProblem: A picture needs more memory than there is.
    """
    named = [images] if isinstance(images, str | Path) else list(images)
    tiled = TiledRunner(runner, tile, overlap, seam_psnr, progress=progress)
    return restore_planned(tiled, plan_outputs(named, output, overwrite), overwrite, progress)


def restore_planned(
    runner: Runner, pairs: Sequence[tuple[Path, Path]], overwrite: bool = False, progress: Progress = silent
) -> list[Restored]:
    """`restore_pictures` of pictures whose outputs are planned already (`plan_outputs`)."""
    check_sizes(pairs, runner.spec.scale)
    done = []
    for number, (picture, target) in enumerate(pairs, 1):
        progress(f"{picture.name} ({number} of {len(pairs)})")
        done.append(restore_file(runner, picture, target, overwrite))
    return done
