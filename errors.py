"""Typed errors: each says what happened, why, and what to do, and carries a stable code and an exit code.

Exit codes of the command line: 0 success, 1 parity, budget or audit missed or some of the pictures failed, 2 bad input,
3 unsupported here, 4 environment, 5 internal.
"""

from __future__ import annotations

import errno
import os
from typing import Any, ClassVar

__all__ = [
    "AgileIRError",
    "AuditMissed",
    "CheckpointError",
    "EnvironmentProblem",
    "ImageError",
    "ImageTooLarge",
    "InputError",
    "InternalError",
    "ModelNameError",
    "OnnxFileError",
    "OutputError",
    "ParityMissed",
    "PicturesFailed",
    "Unsupported",
    "VideoError",
    "system_error",
]


class AgileIRError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: What happened, with the numbers and the file in it.
        why: The reason, where it is not obvious from `what`.
        fix: What the reader can do about it.

    Attributes:
        code: Stable identifier for machines, such as ``"input.checkpoint"``.
        exit_code: Exit status of the command line for this error.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 5

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(" ".join(part for part in (what, why, fix) if part))

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)

    def to_json(self) -> dict[str, str | int]:
        """The error as a JSON object: code, exit_code, what, why, fix."""
        return {name: getattr(self, name) for name in ("code", "exit_code", "what", "why", "fix")}


def _again(kind: type[AgileIRError], args: tuple[Any, ...], state: dict[str, Any]) -> AgileIRError:
    """An error as it was before it was pickled, whatever its class wants to be made of."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ParityMissed(AgileIRError):
    """A rung of the parity ladder or a dB budget was missed."""

    code = "parity.missed"
    exit_code = 1


class AuditMissed(AgileIRError):
    """A built engine does not compute in the precision that was asked for."""

    code = "audit.missed"
    exit_code = 1


class PicturesFailed(AgileIRError):
    """Of several pictures, some could not be restored; the rest is done."""

    code = "restore.failed"
    exit_code = 1


class InputError(AgileIRError):
    """The user's input cannot be used as it is."""

    code = "input"
    exit_code = 2


class ModelNameError(InputError):
    """Neither a preset, a packaged model nor a file has this name."""

    code = "input.model-name"


class CheckpointError(InputError):
    """A checkpoint is unreadable, unsafe, unknown, or does not fit its architecture."""

    code = "input.checkpoint"


class OnnxFileError(InputError):
    """A file is not ONNX, or was not written by this package."""

    code = "input.onnx"


class ImageError(InputError):
    """An image cannot be read, or has a form that cannot be restored."""

    code = "input.image"


class ImageTooLarge(ImageError):
    """An image has more pixels than may be read."""


class VideoError(InputError):
    """A video cannot be read, or has a form that cannot be restored."""

    code = "input.video"


class OutputError(InputError):
    """An output cannot be written: it exists, its folder is missing or read-only, the disk is full."""

    code = "input.output"


class Unsupported(AgileIRError):
    """The request is sound but cannot be done here, or by this target."""

    code = "unsupported"
    exit_code = 3


class EnvironmentProblem(AgileIRError):
    """Something that must be installed is missing or has an unusable version."""

    code = "environment"
    exit_code = 4


class InternalError(AgileIRError):
    """A promise this package makes to itself was broken: a defect to report."""

    code = "internal"
    exit_code = 5


def system_error(error: OSError) -> AgileIRError:
    """The typed error of one that the system raised, where nobody foresaw it.

    Returns:
        `OutputError` where a disk is full or cannot be written, `InputError` where a name is at fault (too long, no
        folder, no permission), else `EnvironmentProblem`.
    """
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = f"{error.strerror or type(error).__name__}{': ' if names else '.'}{' and '.join(names)}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return OutputError(what, fix="Free some space, or write to another disk.")
    named = (errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EINVAL)
    if error.errno in named:
        return InputError(what, fix="Check the name and its permissions.")
    return EnvironmentProblem(what, why="The system refuses it.", fix="Try again, or look at the disk and the network.")
