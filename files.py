"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError

__all__ = ["check_output", "write_atomic", "write_together", "written_beside"]


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Say early that a file cannot be written, before minutes go into computing it.

    Args:
        path: File that is going to be written.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: The file exists and may not be replaced, is a folder, or its folder is
            missing or read-only.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder.", fix="Name a file.")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise OutputError(f"{path} exists already.", fix="Name another, or allow overwriting.")
    if not path.parent.is_dir():
        raise OutputError(
            f"Cannot write {path}: there is no folder {path.parent}.",
            fix="Create the folder first.",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"Cannot write {path}: the folder {path.parent} is read-only.",
            fix="Choose another folder or change its permissions.",
        )


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
            temporary[path] = path.parent / f".agileir-{secrets.token_hex(8)}.tmp"
            with temporary[path].open("xb") as stream:
                stream.write(data)
        for path, written in temporary.items():
            check_output(path, overwrite)
            written.replace(path)
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
    temporary = path.parent / f".agileir-{secrets.token_hex(8)}{path.suffix}"
    try:
        yield temporary
        check_output(path, overwrite)
        try:
            temporary.replace(path)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error.strerror}.", fix="Choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)
