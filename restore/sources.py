"""Which pictures are meant by files, folders, patterns and lists, and where each belongs below an output folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import ImageError
from ..images.files import IMAGE_SUFFIXES, READ_SUFFIXES, list_images, natural_key

__all__ = ["find_pictures"]

LIST = "@"
"""What a list of pictures begins with on the command line; a file of such a name is written ``./@name``."""


def find_pictures(
    named: Sequence[str | Path], recursive: bool = False, output: Path | None = None
) -> list[tuple[Path, Path]]:
    """Expands what a user names into pictures.

    - A file is a picture whatever its suffix.
    - A folder gives its visible pictures in natural order, or with `recursive` those of the whole tree. Links to
      folders are not followed.
    - A pattern such as ``photos/**/*.jpg``, where there is no file of that name, gives the visible pictures it matches.
    - ``@list.txt`` is a text file (UTF-8) with one of the above a line, as if each had been named.

    Args:
        named: Files, folders, patterns, lists.
        recursive: Whether folders are searched with all that is in them.
        output: A folder that is left out where it lies in one that is searched: what was restored is not restored
            again.

    Returns:
        (file, place) of every picture, each once: where it belongs, relative to an output folder. That is its name;
        below a searched tree, or the fixed beginning of a pattern, its path from there; and with `recursive`, of a file
        that a list names by a relative path, that path.

    Raises:
        ImageError: Nothing is there under a name, or no picture in it.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    left_out = None if output is None else output.resolve()
    for path, place in _named(named, recursive):
        for picture in _pictures(path, place, recursive, left_out):
            found.setdefault(picture[0].resolve(), picture)
    if not found:
        raise ImageError("No image was given.", fix="Name image files or a folder of them.")
    return list(found.values())


def _named(named: Iterable[str | Path], recursive: bool) -> Iterator[tuple[Path, Path | None]]:
    """What is named, with that of lists, and for a file of a list the place where it belongs."""
    for each in named:
        if not str(each).startswith(LIST):
            yield Path(each), None
            continue
        file = Path(str(each).removeprefix(LIST))
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()  # Windows begins such files with a mark
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError(
                f"Cannot read the list of pictures {file}: {reason}.",
                fix=f"Name a text file with a path a line; a picture whose name begins with {LIST} is ./{each}.",
            ) from error
        for path in (Path(line) for line in lines if line.strip()):
            yield path, path if recursive and not path.is_absolute() and ".." not in path.parts else None


def _pictures(path: Path, place: Path | None, recursive: bool, left_out: Path | None) -> Iterator[tuple[Path, Path]]:
    """(file, place) of what a name means."""
    if path.is_dir():
        files = _tree(path, left_out) if recursive else list_images(path)
        yield from ((file, file.relative_to(path)) for file in files)
    elif not path.exists() and glob.has_magic(str(path)):
        yield from _matches(path, left_out)
    else:
        yield from ((file, place or Path(file.name)) for file in list_images(path))


def _tree(folder: Path, left_out: Path | None) -> list[Path]:
    """Visible pictures of a folder and of all folders in it."""
    found: list[Path] = []
    for place, below, names in os.walk(folder, onerror=_refuse):
        visible = (name for name in below if not name.startswith(".") and Path(place, name).resolve() != left_out)
        below[:] = sorted(visible, key=natural_key)
        found += (Path(place, name) for name in sorted(names, key=natural_key) if _is_picture(name))
    if not found:
        raise ImageError(
            f"The folder {folder} has no image in it, nor have those in it.",
            fix="Files with these suffixes are taken: " + " ".join(IMAGE_SUFFIXES + READ_SUFFIXES) + ".",
        )
    return found


def _matches(pattern: Path, left_out: Path | None) -> Iterator[tuple[Path, Path]]:
    """(file, place) of the visible pictures that a pattern matches."""
    fixed = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    root = Path(*pattern.parts[:fixed])
    if left_out is not None and root.resolve().is_relative_to(left_out):
        left_out = None
    matched = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 (that of pathlib gives what is hidden, too)
    files = [
        file
        for file in map(Path, sorted(matched, key=natural_key))
        if _is_picture(file.name) and not file.is_dir()
        if left_out is None or not file.resolve().is_relative_to(left_out)
    ]
    if not files:
        raise ImageError(f"There is no picture that {pattern} matches.", fix="Check the path.")
    yield from ((file, file.relative_to(root)) for file in files)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES + READ_SUFFIXES


def _refuse(error: OSError) -> None:
    raise ImageError(
        f"Cannot list the folder {error.filename}: {error.strerror}.", fix="Check its permissions."
    ) from error
