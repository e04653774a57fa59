"""The graph that is quantised, and the file a recipe makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError, InternalError
from ..export.artifact import PROVENANCE_KEY
from ..export.precision import convert_precision
from ..parity.rescaling import rescale_if_needed
from ..progress import Progress
from .equalise import apply_equalisation
from .layers import Layer
from .quantise import insert_qdq, quantised_layers
from .recipe import Recipe

if TYPE_CHECKING:
    import onnx

    from ..export import OnnxArtifact

__all__ = ["apply_recipe", "load_graph"]


def load_graph(artifact: OnnxArtifact, rest: str, progress: Progress) -> tuple[onnx.ModelProto, bool]:
    """The graph of a float32 file; where the rest becomes float16, brought into its range (`rescale_if_needed`).

    Returns:
        The graph, and whether it was rescaled.

    Raises:
        InputError: The file is not float32.
        Unsupported: A stream leaves float16's range and cannot be rescaled.
        ParityMissed: The rescaled graph does not compute the same float32 bits.
    """
    if artifact.precision != "float32":
        raise InputError(
            f"{artifact.name} is in {artifact.precision}; calibration starts from float32.",
            fix="Export the model without --fp16, --bf16 or --int8.",
        )
    if rest != "float16":
        return artifact.model, False
    rescaled, report = rescale_if_needed(artifact, progress=progress)
    return rescaled.model, report.changed


def apply_recipe(graph: onnx.ModelProto, layers: Sequence[Layer], recipe: Recipe, rest: str) -> onnx.ModelProto:
    """The INT8 graph a recipe makes of a float graph; its provenance tells of the calibration.

    Raises:
        InputError: The recipe names a place to equalise that the graph has not.
        InternalError: The result is not valid ONNX.
    """
    import onnx

    try:
        equalised = apply_equalisation(graph, layers, recipe.equalisations)
    except (KeyError, ValueError) as error:
        raise InputError(f"The recipe does not fit the graph: {error}.", fix="Calibrate again.") from error
    result = insert_qdq(equalised, layers, recipe.thresholds, recipe.int8)
    if rest != "float32":
        result = convert_precision(result, rest)
        if lost := set(recipe.int8) - quantised_layers(result, layers):
            raise InternalError(f"{len(lost)} layers left INT8 on the way to {rest}, such as {min(lost)}.")
    metadata = {entry.key: entry.value for entry in result.metadata_props}
    provenance = json.loads(metadata.get(PROVENANCE_KEY, "{}"))
    metadata[PROVENANCE_KEY] = json.dumps({**provenance, "calibration": recipe.provenance()}, sort_keys=True)
    onnx.helper.set_model_props(result, metadata)
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"The quantised graph is not valid ONNX: {error}") from error
    return result
