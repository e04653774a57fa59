"""What is to be restored to which file, and whether it can be, before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError, Unsupported
from ..files import check_output
from ..images.files import (
    IMAGE_SUFFIXES,
    LARGEST_SIDE,
    READ_SUFFIXES,
    check_side,
    read_size,
)
from ..images.spectral import TIFF_SUFFIXES, bands_of
from ..models.spec import ModelSpec
from .journal import begun_outputs
from .one_picture import is_spectral
from .sources import find_pictures

__all__ = ["FolderOptions", "Plan", "check_pictures", "plan_outputs"]


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


AS_USUAL = FolderOptions()
"""Nothing is asked for."""


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
    options: FolderOptions = AS_USUAL

    @property
    def keep_going(self) -> bool:
        """Whether the rest is done where a picture cannot be restored."""
        chosen = self.options.keep_going
        return len(self.pairs) > 1 if chosen is None else chosen


def plan_outputs(
    images: Sequence[str | Path],
    output: str | Path,
    options: FolderOptions = AS_USUAL,
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


def check_pictures(pairs: Sequence[tuple[Path, Path]], spec: ModelSpec) -> None:
    """Says before any work that a picture is none for a model, or that it will be too large for its format.

    Args:
        pairs: Pictures and their outputs, of `plan_outputs`.
        spec: The model's spec.

    Raises:
        Unsupported: The model takes other channels than grey and colour, and a picture has not as many.
        OutputError: A picture will not go into its format: WebP ends at 16383 pixels a side, JPEG at 65500.
    """
    for source, file in pairs:
        suffix = file.suffix.lower()
        if is_spectral(spec) and (suffix not in TIFF_SUFFIXES or bands_of(source) != spec.channels):
            found = bands_of(source)
            has = f"has {found} channels" if found else "is no TIFF"
            raise Unsupported(
                f"{spec.name} is a model of {spec.channels} channels: {source} {has}, and goes to a {suffix}.",
                why="Other pictures have 1 or 3 channels; more are read from TIFF files, and written to them.",
                fix=f"Give TIFF files of {spec.channels} samples a pixel, and outputs that end in .tif.",
            )
        size = read_size(source) if suffix in LARGEST_SIDE else None
        if size is not None:
            check_side(file, size[0] * spec.scale, size[1] * spec.scale)


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
