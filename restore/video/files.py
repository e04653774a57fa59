"""Which paths are videos, and where their restoration goes; without PyAV."""

from __future__ import annotations

from pathlib import Path

from ...errors import OutputError
from ...files import check_output
from ...images.files import IMAGE_SUFFIXES, READ_SUFFIXES
from ...images.signatures import foreign_format

__all__ = ["PIPE", "VIDEO_SUFFIXES", "is_video", "video_target"]

PIPE = "-"
"""Standard input, or output."""

VIDEO_SUFFIXES = (
    *(".mkv", ".mp4", ".mov", ".webm", ".m4v", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".vob", ".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".nut", ".y4m"),
)


def is_video(path: str | Path) -> bool:
    """Whether a path is a video by its suffix or its first bytes, or a pipe."""
    path = Path(path)
    suffix = path.suffix.lower()
    if str(path) == PIPE or suffix in VIDEO_SUFFIXES:
        return True
    if suffix in IMAGE_SUFFIXES + READ_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(256) if path.is_file() else b""
    except OSError:  # reading it will say why
        return False
    return "video" in (foreign_format(head) or "") or head.startswith(b"YUV4MPEG2")


def video_target(source: str | Path, output: str | Path, overwrite: bool) -> str | Path:
    """Where a video is restored to, checked before any work: a file, a pipe, or its own name in a folder.

    Args:
        source: The video, or ``"-"``.
        output: File, folder that exists, or ``"-"``.
        overwrite: Whether an existing file may be replaced.

    Raises:
        OutputError: The target exists (without `overwrite`), is its own source, or cannot be written.
    """
    if str(output) == PIPE:
        return PIPE
    target = Path(output)
    if target.is_dir() and str(source) != PIPE:
        target /= Path(source).name
    if target.suffix.lower() not in VIDEO_SUFFIXES:
        raise OutputError(
            f"A video cannot be written as {target}: {target.suffix or 'no suffix'} names no video format.",
            fix="Name an output file that ends in one of " + " ".join(VIDEO_SUFFIXES) + ".",
        )
    if str(source) != PIPE and target.resolve() == Path(source).resolve():
        raise OutputError(f"{source} would be replaced by its own restoration.", fix="Name another file or folder.")
    check_output(target, overwrite)
    return target
