"""Half precision as a rewrite of the ONNX graph: what runs it takes its types from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING

from ..errors import InputError, InternalError
from .artifact import CONVERSION_KEY, OnnxArtifact, artifact_of
from .element_types import HALF_TYPES, body_refusal
from .functions import default_opset
from .opset import raise_opset
from .passes import Conversion, lower_precision, run_passes

if TYPE_CHECKING:
    import onnx

__all__ = ["HALF_PRECISIONS", "convert_precision", "to_precision"]

HALF_PRECISIONS = tuple(HALF_TYPES)
"""``"float16"`` and ``"bfloat16"``."""

CONVOLUTION_OPSET = 22
"""First opset with Conv in bfloat16."""

SCALE_OPSET = 19
"""First opset with QuantizeLinear and DequantizeLinear in half precision."""


def convert_precision(
    model: onnx.ModelProto, precision: str, *, keep_opset: bool = False, kept: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """A copy of a float32 model that computes in half precision, with float32 input and output.

    Weights and activations become half precision, the operators of this package included (their function bodies are
    generic in the type and keep logits, softmax and position bias in float32). LayerNormalization keeps its statistics
    in float32 (``stash_type = 1``). INT8 files are taken as well: what stands outside QuantizeLinear and
    DequantizeLinear is converted. The choice of keys in a key-semantic model stays in float32, with the few nodes that
    lead there (`passes.key_features`).

    ONNX has no bfloat16 convolution before opset 22, and no half-precision scales of quantisation before 19: the file
    then declares that opset (`opset.raise_opset`). Where it cannot, these nodes stay in float32, between Casts.

    What stayed in float32 and why, and the weights that became zero, are written to the metadata
    (`OnnxArtifact.conversion`).

    Args:
        model: A model in float32, or INT8 with a float32 rest; not changed.
        precision: ``"float16"`` or ``"bfloat16"``.
        keep_opset: Never declare another opset.
        kept: Reason by the first result of every node that must stay in float32.

    Raises:
        InputError: Another precision was named, or the model is in half precision already.
        Unsupported: A weight is beyond the precision's range.
        InternalError: The result is not valid ONNX.
    """
    import onnx

    if precision not in HALF_PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(HALF_PRECISIONS)}, got {precision!r}.")
    if any(tensor.data_type in HALF_TYPES.values() for tensor in model.graph.initializer):
        raise InputError("The model is in half precision already.", fix="Convert the float32 file it was made from.")
    if not keep_opset:
        quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        wanted = CONVOLUTION_OPSET if precision == "bfloat16" else SCALE_OPSET if quantised else 0
        model = raise_opset(model, wanted)
    opset = default_opset(model)
    refusals = {function.name: body_refusal(function, precision, opset) for function in model.functions}
    conversion = Conversion(precision)
    step = lower_precision(conversion, opset, {name: why for name, why in refusals.items() if why}, kept or {})
    result = run_passes(_typed(model), [step])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(result, {**metadata, CONVERSION_KEY: json.dumps(conversion.to_json(), sort_keys=True)})
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"The graph in {precision} is not valid ONNX: {error}") from error
    return result


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every tensor has a type; shapes stay as they are, for inference invents names of free sizes."""
    import onnx

    copy = deepcopy(model)
    known = {value.name for value in model.graph.value_info}
    for value in onnx.shape_inference.infer_shapes(model).graph.value_info:
        if value.name not in known:
            value.type.tensor_type.ClearField("shape")
            copy.graph.value_info.append(value)
    return copy


def to_precision(
    source: OnnxArtifact, precision: str, *, keep_opset: bool = False, kept: Mapping[str, str] | None = None
) -> OnnxArtifact:
    """A float32 model, or an INT8 one with a float32 rest, in half precision; see `convert_precision`.

    Spec, provenance and block names are carried over.

    Args:
        source: What is converted.
        precision: ``"float16"`` or ``"bfloat16"``.
        keep_opset: Never declare another opset.
        kept: See `convert_precision`.

    Raises:
        InputError: Another precision was named, or the source is in half precision already.
        Unsupported: A weight is beyond the precision's range.
        InternalError: The result is not valid ONNX.
    """
    return artifact_of(convert_precision(source.model, precision, keep_opset=keep_opset, kept=kept))
