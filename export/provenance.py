"""Where a file's weights come from: written at export, read back to find the reference again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError
from ..models.options import LoadOptions
from ..models.spec import CHECKPOINT_SUFFIXES
from .artifact import read_artifact

if TYPE_CHECKING:
    from ..models import Restorer

__all__ = ["Exported", "describe_file", "reload_model"]


class Exported(Protocol):
    """A file that says where its weights come from: an ONNX file, or an engine."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Versions and source of the weights."""


def reload_model(artifact: Exported) -> Restorer:
    """Loads the model a file was made from again, where the file alone tells which.

    Raises:
        InputError: The weights came from a checkpoint, which must be named.
    """
    from ..models import load_model, preset_names

    origin = artifact.provenance
    name = origin.get("model")
    if name not in preset_names() or "weights" in origin:
        raise InputError(
            f"{artifact.name} was made from the checkpoint {origin.get('weights', name)}.",
            fix="Name it: --reference FILE, or --reference PRESET --weights FILE.",
        )
    return load_model(name, LoadOptions.from_json(origin))


def describe_file(path: str | Path) -> dict[str, Any]:
    """Facts of an exported file or a checkpoint; of this, what was read off its weights and what they do not hold.

    Raises:
        OnnxFileError: Not an ONNX file of this package.
        CheckpointError: Not a checkpoint of a known network.
    """
    path = Path(path)
    if path.suffix.lower() not in CHECKPOINT_SUFFIXES:
        return {"kind": "onnx", **read_artifact(path).to_json()}
    from ..models import load_model

    model = load_model(path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {"kind": "checkpoint", "path": str(path), "parameters": parameters, "spec": model.spec.to_json()}
    origin = model.origin
    if origin is None:
        return facts
    return facts | {
        "branch": origin.branch,
        "left_out": list(origin.left_out),
        "read": {name: list(value) if isinstance(value, tuple) else value for name, value in origin.read.items()},
        "assumed": {name: {"value": fact.value, "why": fact.why} for name, fact in origin.assumed.items()},
    }
