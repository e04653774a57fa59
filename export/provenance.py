"""Where a file's weights come from: written at export, read back to find the reference again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError
from ..models.options import LoadOptions
from ..models.spec import CHECKPOINT_SUFFIXES
from .artifact import OnnxArtifact, read_artifact

if TYPE_CHECKING:
    from ..models import Restorer
    from ..models.checkpoint import ModelEntry

__all__ = ["Exported", "describe_file", "describe_onnx", "reload_model"]


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
    """Facts of an exported file, a model by its name, or a checkpoint.

    Of a checkpoint, also what was read off its weights and what they do not hold.

    Raises:
        OnnxFileError: Not an ONNX file of this package.
        CheckpointError: Not a checkpoint of a known network.
    """
    path = Path(path)
    if path.suffix.lower() in CHECKPOINT_SUFFIXES:
        return _of_checkpoint(path)
    if not path.exists():
        from ..models import list_models

        entry = next((entry for entry in list_models() if entry.name == str(path)), None)
        if entry is not None:
            return _of_preset(entry)
    return describe_onnx(read_artifact(path))


def describe_onnx(artifact: OnnxArtifact) -> dict[str, Any]:
    """Facts of an exported file: what it is made from and holds, and how large it is."""
    graph, opsets = artifact.model.graph, artifact.model.opset_import
    sizes = (math.prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims) > 0)
    return {
        "kind": "onnx",
        **artifact.to_json(),
        "opset": next(entry.version for entry in opsets if entry.domain in ("", "ai.onnx")),
        "inputs": [_tensor(entry) for entry in graph.input],
        "outputs": [_tensor(entry) for entry in graph.output],
        "parameters": sum(sizes),
        "bytes": len(artifact.data),
    }


def _tensor(entry: Any) -> dict[str, Any]:
    """Name, type and shape of an input or output; free dimensions by their names."""
    from onnx import TensorProto

    kind = entry.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim]
    return {"name": entry.name, "type": TensorProto.DataType.Name(kind.elem_type).lower(), "shape": shape}


def _of_preset(entry: ModelEntry) -> dict[str, Any]:
    from ..models import load_model

    model = load_model(entry.name) if entry.packaged else load_model(entry.name, random_weights=0)
    weights = "packaged" if entry.packaged else "not packaged: --weights FILE, or --random-weights SEED for trials"
    facts = {"kind": "model", "name": entry.name, "paper": entry.paper, "weights": weights, "released": entry.released}
    return {**facts, "parameters": _parameters(model), "spec": model.spec.to_json()}


def _parameters(model: Restorer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _of_checkpoint(path: Path) -> dict[str, Any]:
    from ..models import load_model

    model = load_model(path)
    facts = {"kind": "checkpoint", "path": str(path), "parameters": _parameters(model), "spec": model.spec.to_json()}
    origin = model.origin
    if origin is None:
        return facts
    return facts | {
        "branch": origin.branch,
        "left_out": list(origin.left_out),
        "read": {name: list(value) if isinstance(value, tuple) else value for name, value in origin.read.items()},
        "assumed": {name: {"value": fact.value, "why": fact.why} for name, fact in origin.assumed.items()},
    }
