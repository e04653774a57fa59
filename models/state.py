"""Reading state dicts out of checkpoints of any form.

Only tensors are read: checkpoints are opened with ``weights_only=True``, so that pickled code never runs.
"""

from __future__ import annotations

import collections
import json
import pickle
import pickletools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .spec import CHECKPOINT_SUFFIXES

__all__ = ["exists", "read_state"]

WRAPPERS = ("params_ema", "params", "state_dict", "model")
METADATA_KEY = "agileir"


def exists(path: Path) -> bool:
    """Whether there is such a file or folder."""
    try:
        return path.exists()
    except OSError:  # a name too long for a file, for example
        return False


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a state dict and the metadata this package writes beside weights (empty where there is none).

    Raises:
        CheckpointError: The file is missing, truncated, holds anything but tensors, or has another suffix.
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
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(_read_pickle(path), path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except Exception as error:  # whatever a damaged file makes the reader trip over
        raise _unreadable(path, _one_sentence(error)) from error
    return _unwrap(state, path), metadata if isinstance(metadata, dict) else {}


def _read_pickle(path: Path) -> object:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise _unreadable(path, _one_sentence(error)) from error
    if not start.startswith((b"\x80", b"PK\x03\x04")):
        raise _unreadable(path, "It is neither a PyTorch archive nor a pickle.")
    try:
        with warnings.catch_warnings():
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
                collections.deque(pickletools.genops(file), maxlen=0)
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


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """Takes the weights out of the wrappers training codes put around them."""
    for _ in WRAPPERS:  # each at most once: a pickle may contain itself
        if not isinstance(loaded, Mapping):
            break
        inside = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not inside:
            break
        loaded = inside[0]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(
            f"{path}: holds no state dict but {type(loaded).__name__}"
            f"{' without entries' if isinstance(loaded, Mapping) else ''}.",
            fix="Save model.state_dict().",
        )
    state: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: the entry {key!r} is {type(value).__name__}, not a tensor.",
                fix=f"Save the state dict alone, or under one of {', '.join(WRAPPERS)}.",
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise CheckpointError(
                f"{path}: {key} is not an ordinary dense tensor.",
                why=f"It is {value.dtype} on {value.device.type} with layout {value.layout}.",
                fix="Save the weights as dense floating-point tensors.",
            )
        state[key.removeprefix("module.")] = value
    return state
