"""Picture files through a runner: colour, grey, alpha and 16 bits in, the same out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.runner import Runner
from ..errors import AgileIRError, EnvironmentProblem, OutputError
from ..files import check_output
from ..images.files import IMAGE_SUFFIXES, Image, list_images, read_image, write_image
from ..images.resizing import resize_bicubic
from ..parity.images import to_channels
from ..progress import Progress, silent
from .out_of_memory import is_out_of_memory

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
    missing, in which every picture keeps its name.

    Raises:
        ImageError: A path holds no picture.
        OutputError: A target exists (without `overwrite`), is its own source, is wanted twice, or cannot be written.
    """
    sources, target = list_images(images), Path(output)
    is_file = not target.is_dir() and (target.exists() or target.suffix[1:].isalpha())
    if is_file and len(sources) > 1:
        raise OutputError(f"{len(sources)} pictures do not go into one file {target}.", fix="Name a folder.")
    pairs = [(source, target if is_file else target / source.name) for source in sources]
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


def _check_pairs(pairs: Sequence[tuple[Path, Path]]) -> None:
    """What is wrong with the targets by themselves, whatever lies there."""
    wanted: dict[Path, Path] = {}
    for source, file in pairs:
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            raise OutputError(
                f"{source} cannot be written as {file}: {file.suffix or 'no suffix'} names no image format.",
                fix="Name an output file that ends in one of " + " ".join(IMAGE_SUFFIXES) + ".",
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


def restore_image(runner: Runner, image: Image) -> Image:
    """Restores one picture; alpha is resized bicubically, bit depth, EXIF and profile are kept.

    A grey picture goes through a colour model as three equal channels and comes back as their luma; a colour picture
    goes through a grey model channel by channel.

    Raises:
        EnvironmentProblem: The picture needs more memory than there is.
    """
    scale, channels = runner.spec.scale, runner.spec.channels
    pixels = image.pixels
    try:
        if len(pixels) == channels:
            restored = runner.run(pixels[None])[0]
        elif channels == 1:
            restored = runner.run(np.ascontiguousarray(pixels[:, None]))[:, 0]
        else:
            restored = to_channels(runner.run(np.repeat(pixels, channels, 0)[None])[0][:3], 1)
    except AgileIRError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        height, width = pixels.shape[1:]
        raise EnvironmentProblem(
            f"A picture of {height}x{width} pixels needs more memory than there is.",
            fix="Cut it into smaller pictures, or use a machine with more memory.",
        ) from error
    alpha = None if image.alpha is None else np.clip(resize_bicubic(image.alpha, scale), 0, 1)
    return dataclasses.replace(image, pixels=np.clip(restored, 0, 1), alpha=alpha)


def restore_file(runner: Runner, source: Path, output: Path, overwrite: bool = False) -> Restored:
    """Restores one file to another, written whole or not at all.

    Raises:
        ImageError: The picture cannot be read.
        OutputError: The output cannot be written.
        EnvironmentProblem: The picture needs more memory than there is.
    """
    image = read_image(source)
    start = time.perf_counter()
    restored = restore_image(runner, image)
    seconds = time.perf_counter() - start
    write_image(output, restored, overwrite)
    sizes = [(int(i.pixels.shape[1]), int(i.pixels.shape[2])) for i in (image, restored)]
    return Restored(source, output, sizes[0], sizes[1], seconds)


def restore_pictures(
    runner: Runner,
    images: str | Path | Sequence[str | Path],
    output: str | Path,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Restored]:
    """Restores picture files, or all pictures of folders.

    Args:
        runner: What restores, see `open_runner`.
        images: Picture or folder, or several.
        output: File for one picture, folder for several; see `plan_outputs`.
        overwrite: Whether existing files may be replaced.
        progress: Told each picture.

    Returns:
        What was restored, in order.

    Raises:
        ImageError: A picture cannot be read.
        OutputError: An output cannot be written.
        EnvironmentProblem: A picture needs more memory than there is.
    """
    named = [images] if isinstance(images, str | Path) else list(images)
    return restore_planned(runner, plan_outputs(named, output, overwrite), overwrite, progress)


def restore_planned(
    runner: Runner, pairs: Sequence[tuple[Path, Path]], overwrite: bool = False, progress: Progress = silent
) -> list[Restored]:
    """`restore_pictures` of pictures whose outputs are planned already (`plan_outputs`)."""
    done = []
    for number, (picture, target) in enumerate(pairs, 1):
        progress(f"{picture.name} ({number} of {len(pairs)})")
        done.append(restore_file(runner, picture, target, overwrite))
    return done
