"""Picture files through a runner: colour, grey, alpha and 16 bits in, the same out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engines.runner import Runner
from ..errors import AgileIRError, EnvironmentProblem, InputError, OutputError
from ..files import check_output
from ..images.files import (
    IMAGE_SUFFIXES,
    LARGEST_SIDE,
    READ_SUFFIXES,
    Image,
    check_side,
    read_image,
    read_size,
    write_image,
)
from ..images.metadata import rescaled
from ..images.resizing import resize_bicubic
from ..images.transparency import visible_colour
from ..parity.images import to_channels
from .journal import begun_outputs
from .out_of_memory import is_out_of_memory
from .sources import find_pictures

__all__ = ["FolderOptions", "Plan", "Restored", "check_sizes", "plan_outputs", "restore_file", "restore_image"]


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


@dataclass(frozen=True)
class FolderOptions:
    """How pictures are found, and what becomes of those that are there already or cannot be restored.

    Attributes:
        overwrite: Existing files may be replaced.
        recursive: Folders are searched with all that is in them, and the tree is mirrored.
        resume: What an earlier run into the same folder finished, with the same runner and from sources that have not
            changed since, is left as it is; what it had begun is restored again.
        skip_existing: A picture whose output exists is left out.
        keep_going: A picture that cannot be restored is named, and the rest is done, instead of its error being raised;
            None for so where there are several.
        log: A file to which a line of JSON is appended for every picture.
    """

    overwrite: bool = False
    recursive: bool = False
    resume: bool = False
    skip_existing: bool = False
    keep_going: bool | None = None
    log: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What is going to be restored.

    Attributes:
        pairs: Every picture with the file it is restored to.
        folder: The output folder, which has the journal; None where one picture goes to a named file.
        options: As given.
    """

    pairs: tuple[tuple[Path, Path], ...]
    folder: Path | None = None
    options: FolderOptions = FolderOptions()

    @property
    def keep_going(self) -> bool:
        """Whether the rest is done where a picture cannot be restored."""
        chosen = self.options.keep_going
        return len(self.pairs) > 1 if chosen is None else chosen


def plan_outputs(
    images: Sequence[str | Path],
    output: str | Path,
    options: FolderOptions = FolderOptions(),
) -> Plan:
    """Pairs every picture with the file it is restored to, before any work is done.

    An `output` that is a file, or looks like one by its suffix, takes one picture. Any other is a folder, made if
    missing with those that mirror a tree, in which every picture keeps its name; one of a format that is not written
    (GIF, AVIF, JPEG 2000) becomes a PNG (x.gif.png). A new folder whose name has a dot ends with a slash, or takes
    several pictures.

    Args:
        images: Files, folders, patterns and lists; see `find_pictures`.
        output: File or folder.
        options: See `FolderOptions`.

    Raises:
        ImageError: A path holds no picture.
        InputError: Options contradict each other.
        OutputError: A target exists (and may neither be replaced nor stay), is its own source, is wanted twice, or
            cannot be written.
    """
    if options.overwrite and options.skip_existing:
        raise InputError("Existing files cannot be both replaced and skipped.", fix="Leave one of the two out.")
    target = Path(output)
    found = find_pictures(images, options.recursive, target)
    suffix = target.suffix.lower()
    named_file = suffix in IMAGE_SUFFIXES + READ_SUFFIXES or (len(found) == 1 and suffix[1:].isalpha())
    named_folder = str(output).endswith(("/", os.sep))
    is_file = not target.is_dir() and (target.exists() or (named_file and not named_folder))
    if is_file and len(found) > 1:
        raise OutputError(f"{len(found)} pictures do not go into one file {target}.", fix="Name a folder.")
    if is_file and options.resume:
        raise InputError(f"A single file such as {target} is not resumed.", fix="Leave --resume out, or name a folder.")
    pairs = [(file, target if is_file else target / place.with_name(_name_in_folder(place))) for file, place in found]
    _check_pairs(pairs)
    if not is_file:
        _make_folders({target, *(file.parent for _, file in pairs)})
    ours = begun_outputs(target) if options.resume else set()
    for _, file in pairs:
        if not (options.skip_existing and file.is_file()):
            check_output(file, options.overwrite or file in ours)
    return Plan(tuple(pairs), None if is_file else target, options)


def _make_folders(folders: Iterable[Path]) -> None:
    """Makes folders that are missing.

    Raises:
        OutputError: One cannot be made.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The folder {folder} cannot be made: {error.strerror}.", fix="Choose another place."
            ) from error


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


def restore_image(runner: Runner, image: Image) -> Image:
    """Restores one picture; alpha is resized bicubically, bit depth, EXIF and profile are kept.

    Colours under full transparency are those of the nearest visible pixel before the network sees them, and the number
    of pixels an inch grows with the picture.

    A grey picture goes through a colour model as three equal channels and comes back as their luma; a colour picture
    goes through a grey model channel by channel.

    Raises:
        EnvironmentProblem: The picture needs more memory than there is.
    """
    scale, channels = runner.spec.scale, runner.spec.channels
    pixels = visible_colour(image.pixels, image.alpha)
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
            fix="Restore it in smaller tiles (--tile), or use a machine with more memory.",
        ) from error
    alpha = None if image.alpha is None else np.clip(resize_bicubic(image.alpha, scale), 0, 1)
    return rescaled(image, np.clip(restored, 0, 1, out=restored), alpha)


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
