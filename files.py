"""Writing files whole or not at all, and never over what is read or is no file.

One rule for all that is written: only regular files are replaced, and that is logged; a symbolic link is followed, so
that what it points to is replaced and the link stays.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import OutputError

__all__ = [
    "LOG_FIX",
    "appended",
    "check_output",
    "check_separate",
    "real",
    "write_atomic",
    "write_together",
    "written_beside",
]

LOG = logging.getLogger(__name__)


LOG_FIX = "Check free space, quota and permissions of its folder, or name another file."


@contextmanager
def appended(path: Path | None) -> Iterator[IO[str] | None]:
    """A log, opened to be appended to (UTF-8); None where none is wanted.

    Raises:
        OutputError: It cannot be written.
    """
    if path is None:
        yield None
        return
    try:
        stream = path.open("a", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write the log {path}: {error.strerror}.", fix=LOG_FIX) from error
    with stream:
        yield stream


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Say early that a file cannot be written, before minutes go into computing it.

    Args:
        path: File that is going to be written.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: The file exists and may not be replaced, is a folder or another thing that is no file, or its
            folder is missing or read-only.
    """
    path, place = Path(path), real(path)
    if place.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder.", fix="Name a file.")
    if place.exists() and not place.is_file():
        raise OutputError(f"Cannot write {path}: it is a device, a pipe or a socket.", fix="Name a file.")
    if not overwrite and (place.exists() or path.is_symlink()):
        raise OutputError(f"{path} exists already.", fix="Name another, or allow overwriting (--overwrite).")
    folder = (place if path.is_symlink() else path).parent
    if not folder.is_dir():
        raise OutputError(
            f"Cannot write {path}: there is no folder {folder}.",
            fix="Create the folder first.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"Cannot write {path}: the folder {folder} is read-only.",
            fix="Choose another folder or change its permissions.",
        )


def real(path: str | os.PathLike[str]) -> Path:
    """Where a path leads, symbolic links followed; one that leads round in a circle stays as it is."""
    return Path(os.path.realpath(path))


def check_separate(outputs: Mapping[str, Path], inputs: Iterable[Path]) -> None:
    """Refuses outputs that would destroy what the same command reads, or each other.

    Args:
        outputs: Files that are going to be written, by what the user calls them, such as ``"--html"``.
        inputs: What is read.

    Raises:
        OutputError: Two are the same file, by whatever names.
    """
    read = {_identity(path): path for path in inputs}
    written: dict[object, str] = {}
    for name, path in outputs.items():
        identity = _identity(path)
        if identity in read:
            raise OutputError(
                f"{name} {path} would replace what is read: {read[identity]}.", fix="Choose another name."
            )
        if identity in written:
            raise OutputError(f"{written[identity]} and {name} are both {path}.", fix="Give each its own name.")
        written[identity] = name


def _identity(path: Path) -> object:
    """The same for all names of a file: hard and symbolic links, detours through folders."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return real(path)
    return found.st_dev, found.st_ino


def write_atomic(path: str | os.PathLike[str], data: bytes, overwrite: bool = False) -> None:
    """Write bytes to a temporary file beside `path`, then rename it into place.

    Whatever goes wrong, Ctrl-C included, the temporary file is removed and an old file at `path`
    is untouched.

    Args:
        path: File to write.
        data: Its content.
        overwrite: Replace a file that exists.

    Raises:
        OutputError: See `check_output`; or the disk is full, or the system refuses.
    """
    write_together({Path(path): data}, overwrite)


def write_together(files: Mapping[Path, bytes], overwrite: bool = False) -> None:
    """Write several files that belong together: all are complete beside their places before the first is renamed.

    Args:
        files: Content by path; renamed in this order.
        overwrite: Replace files that exist.

    Raises:
        OutputError: As `write_atomic`; no file appears unless the system fails between two renames.
    """
    temporary: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in files.items():
            check_output(path, overwrite)
            temporary[path] = _beside(path, ".tmp")
            with temporary[path].open("xb") as stream:
                stream.write(data)
        for path, written in temporary.items():
            _put(written, path, overwrite)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"Cannot write {path} ({len(files[path])} bytes): {reason}.",
            fix="Check free space, quota and permissions of the folder.",
        ) from error
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


@contextmanager
def written_beside(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """A place beside `path` for what is too large to hold: renamed when the block is done, removed when it fails.

    Args:
        path: File to write.
        overwrite: Replace a file that exists.

    Yields:
        Where to write, with the same suffix.

    Raises:
        OutputError: See `check_output`; or the system refuses to rename.
    """
    path = Path(path)
    check_output(path, overwrite)
    temporary = _beside(path, path.suffix)
    try:
        yield temporary
        try:
            _put(temporary, path, overwrite)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror}.", fix="Choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    """A name for what becomes a file, in the folder where it will stand."""
    return real(path).parent / f".agileir-{secrets.token_hex(8)}{suffix}"


def _put(written: Path, path: Path, overwrite: bool) -> None:
    """Renames what is complete to its name."""
    check_output(path, overwrite)
    replaced = path.exists()
    written.replace(real(path))
    if replaced:
        LOG.info(f"{path} was there and has been replaced")
