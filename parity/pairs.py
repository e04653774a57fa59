"""Opening a file together with the model it came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..engines.opening import is_onnx, refuse_model_options
from ..errors import InputError
from ..export import OnnxArtifact, export_onnx, read_artifact
from ..export.provenance import Exported, reload_model
from ..models import LoadOptions, Restorer, load_model

__all__ = ["open_pair", "reference_model"]


def open_pair(source: str | Path, reference: str | None, options: LoadOptions) -> tuple[Restorer, OnnxArtifact]:
    """Reference model and artifact: an ONNX file names its origin, a model is exported in memory.

    Args:
        source: ONNX file, preset, packaged model or checkpoint.
        reference: Model an ONNX file came from, where the file cannot tell.
        options: How to load the model.

    Raises:
        InputError: A reference was given for a model, or is needed for a file.
        AgileIRError: What loading and exporting raise.
    """
    if is_onnx(source):
        artifact = read_artifact(source)
        return reference_model(artifact, reference, options), artifact
    if reference is not None:
        raise InputError(f"{source} is its own reference.", fix="Leave --reference out.")
    model = load_model(source, options)
    return model, export_onnx(model)


def reference_model(artifact: Exported, reference: str | None, options: LoadOptions) -> Restorer:
    """The model an ONNX file or an engine came from.

    Args:
        artifact: The file.
        reference: Model it came from, where the file cannot tell.
        options: How to load the reference.

    Raises:
        InputError: A reference is needed, or options were given without one: the file was exported with its own.
        AgileIRError: What loading raises.
    """
    if reference is not None:
        return load_model(reference, _as_exported(artifact, options))
    if options.weights is not None:
        raise InputError("--weights needs --reference PRESET for an exported file.")
    refuse_model_options(artifact.name, options)
    return reload_model(artifact)


def _as_exported(artifact: Exported, options: LoadOptions) -> LoadOptions:
    """The options, with the run-time choices the file was exported with where they are left open."""
    exported = LoadOptions.from_json(artifact.provenance)
    return replace(exported, **{"random_weights": None, **options.given()})
