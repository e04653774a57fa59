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

__all__ = ["Exported", "describe_file", "describe_source", "reload_model"]


def describe_source(model: str, options: LoadOptions) -> dict[str, Any]:
    """Provenance of a model as `load_model` was asked for it; of files only the name is kept, never the folder.

    Args:
        model: Preset, packaged model or checkpoint.
        options: How it was loaded.
    """
    return {"model": Path(model).name if Path(model).is_file() else model, **options.to_json()}


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
    """Facts of an exported file or a checkpoint.

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
    return {"kind": "checkpoint", "path": str(path), "parameters": parameters, "spec": model.spec.to_json()}
