"""Reading what checkpoint files hold.

Only tensors are read: checkpoints are opened with ``weights_only=True``, so that pickled code never runs.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..json_form import parse_json
from .spec import CHECKPOINT_SUFFIXES

__all__ = ["exists", "read_content"]

METADATA_KEY = "agileir"

FOREIGN = (
    (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer", "Fetch what it points to: git lfs pull."),
    (rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", "a web page", "Download the file itself, not its page."),
    (rb"\s*<\?xml\b", "an XML document, such as a server's error", "Download the file again."),
    (
        rb"\s*\{\s*\"(error|message|detail)",
        "a server's error in JSON",
        "Download the file again, signed in if need be.",
    ),
    (rb"\x1f\x8b\x08.{5}[^{]|7z\xbc\xaf\x27\x1c|Rar!|.{257}ustar", "an archive of files", "Unpack it first."),
)
"""What is often saved in place of weights: how it begins, its name, and what to do."""


class Inert:
    """Stands in for a harmless object beside the weights: it takes whatever it is made with and does nothing."""

    def __new__(cls, *_: object) -> Inert:
        """An object without content."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


INERT = (
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
)
"""What trainers save beside weights (the best PSNR, their options): never made, an `Inert` takes the place."""

DICTIONARIES = (
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Dictionaries of Lightning's hyper-parameters, read as ordinary ones."""


def exists(path: Path) -> bool:
    """Whether there is such a file or folder."""
    try:
        return path.exists()
    except OSError:  # a name too long for a file, for example
        return False


def read_content(path: str | Path) -> tuple[object, dict[str, Any]]:
    """Reads what a checkpoint holds, and the metadata this package writes beside weights (empty where there is none).

    Raises:
        CheckpointError: The file is missing, truncated, of another kind, or holds what could run code.
    """
    path = Path(path)
    if not exists(path) or not path.is_file():
        found = exists(path)
        kind = "does not exist" if not found else "is a folder" if path.is_dir() else "is no file"
        raise CheckpointError(f"{path}: the checkpoint {kind}.", fix="Check the path.")
    if path.suffix.lower() not in CHECKPOINT_SUFFIXES:
        raise CheckpointError(
            f"{path}: {path.suffix or 'no suffix'} is not a checkpoint format.",
            fix=f"Checkpoints end in {', '.join(CHECKPOINT_SUFFIXES)}.",
        )
    start = _start(path)
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return _read_pickle(path, start), {}


def _start(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        CheckpointError: They cannot be read, or tell that it is something else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _unreadable(path, _one_sentence(error)) from error
    for pattern, what, fix in FOREIGN:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise CheckpointError(
                f"{path}: cannot be read as a checkpoint ({path.stat().st_size} bytes).",
                why=f"It is {what}, not the weights.",
                fix=fix,
            )
    return start


def _read_safetensors(path: Path) -> tuple[object, dict[str, Any]]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = parse_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except Exception as error:  # whatever a damaged file makes the reader trip over
        raise _unreadable(path, _one_sentence(error)) from error
    return state, metadata if isinstance(metadata, dict) else {}


def _read_pickle(path: Path, start: bytes) -> object:
    if not start.startswith((b"\x80", b"PK\x03\x04")):
        raise _unreadable(path, "It is neither a PyTorch archive nor a pickle.")
    try:
        harmless: list[Any] = [(Inert, name) for name in INERT] + [(OrderedDict, name) for name in DICTIONARIES]
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless):
            warnings.simplefilter("ignore")  # on pickle protocols and TorchScript: an error follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if start.startswith(b"\x80") and _ends_early(path):
            raise _unreadable(path, "It ends too early.") from error
        raise CheckpointError(
            f"{path}: holds pickled objects besides tensors, which could run code when loaded.",
            why=_one_sentence(error, "global", "unsupported"),
            fix="Nothing was run. Save the state dict alone: torch.save(model.state_dict(), FILE), or use safetensors.",
        ) from error
    except Exception as error:  # whatever a damaged file makes the reader trip over
        reason = _one_sentence(error, "failed reading", "torchscript", "unsupported")
        raise _unreadable(path, reason) from error


def _ends_early(path: Path) -> bool:
    """True for a file of pickles whose last one is cut off; the pickles are read, not executed."""
    with path.open("rb") as file:
        for _ in range(5):  # torch's older format: number, protocol, system, objects, storage keys
            if not file.peek(1):
                return False
            try:
                deque(pickletools.genops(file), maxlen=0)
            except Exception:
                return True
    return False


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: cannot be read as a checkpoint ({path.stat().st_size} bytes).",
        why=why,
        fix="The file may be truncated or of another kind: download or save it again.",
    )


def _one_sentence(error: Exception, *wanted: str) -> str:
    """The first sentence of the line that has a wanted word in it, else of the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    fitting = [line for word in wanted for line in lines if word in line.lower()]
    chosen = (fitting or lines or ["It ends too early."])[0].split(". ")[0][:200]
    return f"{chosen.removesuffix('.')}."
