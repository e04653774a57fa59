"""From a torch model to an ONNX file: operators as single nodes with function bodies, sizes free, metadata inside."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, InternalError, Unsupported
from ..models import Restorer, fold
from ..plugins.registry import MINIMUM_OPSET
from ..quiet import quiet
from ..version import __version__
from .artifact import BLOCKS_KEY, PROVENANCE_KEY, SPEC_KEY, OnnxArtifact, artifact_of
from .functions import attach_functions, inline_functions
from .passes import GraphPass, name_dimensions, name_tensors, run_passes
from .translation import translation_table

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["DEFAULT_OPSET", "INPUT_NAME", "LEAST_TRACED", "OUTPUT_NAME", "export_onnx", "weights_digest"]

DEFAULT_OPSET = 20
"""First opset with Gelu as one node."""

NEWEST_OPSET = 23
INPUT_NAME, OUTPUT_NAME = "input", "output"
LEAST_TRACED = 16
"""Pixels in half of the shorter side that a network of a library is traced at."""

SCOPES_KEY = "pkg.torch.onnx.name_scopes"


def export_onnx(
    model: Restorer,
    path: str | Path | None = None,
    *,
    opset: int = DEFAULT_OPSET,
    static: tuple[int, int] | None = None,
    decomposed: bool = False,
    source: Mapping[str, Any] | None = None,
) -> OnnxArtifact:
    """A model as ONNX that any runtime can execute.

    The graph takes float32 images ``[batch, channels, height, width]`` in 0..1 whose sides are multiples of
    ``spec.pad_multiple``, and returns ``[batch, channels, s*height, s*width]``; padding and cropping stay with the
    runner. Each operator is one node of the domain ``agileir`` with a function body in plain ONNX.

    Sizes that are free are right for our own families. For a network of a library (`ModelSpec.library`) nobody knows
    before they are tried: `conversion.export` does, and fixes the size where they are not.

    Args:
        model: The model; it is not changed.
        path: File to write, whole or not at all; an existing file is replaced. None to write none.
        opset: ONNX opset, 18 to 23; below 20 Gelu is written as several nodes.
        static: Fix height and width (pixels, rounded up to the multiple) and batch 1, instead of leaving them free.
        decomposed: Inline the function bodies, for tools that know no functions.
        source: Where the model comes from, for the provenance: ``model``, and ``weights`` or ``random_weights``; what
            the model remembers of how it was loaded, unless given.

    Raises:
        InputError: opset or static size out of range.
        Unsupported: The model needs `decomposed`, or the torch exporter cannot write a network of a library.
        OutputError: The file cannot be written.
        InternalError: The exporter froze a dimension, or a check of the result failed.
    """
    if not MINIMUM_OPSET <= opset <= NEWEST_OPSET:
        raise InputError(f"opset must be in {MINIMUM_OPSET}..{NEWEST_OPSET}, got {opset}.")
    size = _static_size(static, model.spec.pad_multiple) if static else None
    folded = fold(model)
    exported = _trace(folded, opset, size)
    blocks = _block_outputs(exported, folded)
    passes: list[GraphPass] = [name_tensors(blocks)]
    if size is None:
        passes.append(name_dimensions(model.spec.scale))
    rewritten = run_passes(exported, passes)
    if decomposed:
        rewritten = inline_functions(rewritten)
    else:
        attach_functions(rewritten)
    if source is None:
        source = model.origin.to_json() if model.origin else {}
    _describe(rewritten, folded, list(blocks.values()), source)
    _check(rewritten, size)
    artifact = artifact_of(rewritten)
    return artifact if path is None else artifact.write(path)


def _static_size(static: tuple[int, int], multiple: int) -> tuple[int, int]:
    height, width = static
    if height < 1 or width < 1:
        raise InputError(f"The static size must be at least 1x1, got {height}x{width}.")
    return height + -height % multiple, width + -width % multiple


def _trace(model: Restorer, opset: int, size: tuple[int, int] | None) -> onnx.ModelProto:
    """The graph as the torch exporter writes it, equal constants stored once.

    Raises:
        Unsupported: The exporter fails at a network that is not ours.
    """
    import torch
    from onnx_ir.passes.common import DeduplicateInitializersPass

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model.network(images)

    def traced(dynamic: Any) -> torch.onnx.ONNXProgram | None:
        with quiet("torch.onnx"), torch.no_grad():
            return torch.onnx.export(
                Network().eval(),
                (torch.zeros(batch, model.spec.channels, height, width),),
                dynamo=True,
                dynamic_shapes=dynamic,
                custom_translation_table=translation_table(),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=opset,
                verbose=False,
            )

    multiple = model.spec.pad_multiple
    if size is None:
        # neither a square nor a single window, and more than one image: sizes that tracing would freeze
        cells = -(-LEAST_TRACED // multiple) if model.spec.library else 1
        height, width, batch = 3 * cells * multiple, 2 * cells * multiple, 2
        rows, columns = torch.export.Dim("rows", min=1), torch.export.Dim("columns", min=1)
        free: list[Any] = [({0: torch.export.Dim("batch", min=1), 2: multiple * rows, 3: multiple * columns},)]
        if model.spec.library:
            free.append((dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO),))  # as small as the network allows
    else:
        (height, width), batch, free = size, 1, [None]
    for dynamic in free:
        try:
            program = traced(dynamic)
            break
        except Exception as error:  # whatever a network of another library makes the exporter trip over
            if not model.spec.library:
                raise
            failure = error
    else:
        raise Unsupported(
            f"The torch exporter cannot write {model.spec.name}.", why=_reason(failure), fix="Try another opset."
        ) from failure
    if program is None:
        raise InternalError("The torch exporter returned no program.")
    # such as the unit gains of every LayerNorm without parameters
    DeduplicateInitializersPass(size_limit=sys.maxsize)(program.model)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _reason(failure: BaseException) -> str:
    """The first line of the error that began it."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or ["no reason given"]
    told = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return f"{type(failure).__name__}: {told[:300]}"


def _block_outputs(exported: onnx.ModelProto, model: Restorer) -> dict[str, str]:
    """Module path by tensor name, for the last tensor computed in every block and stage."""
    paths = {f"model.{name}": name for name in model.blocks()}
    last: dict[str, str] = {}
    for node in exported.graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        for scope in ast.literal_eval(metadata.get(SCOPES_KEY, "[]")):
            if scope in paths:
                last[scope] = node.output[0]
    missing = paths.keys() - last.keys()
    if missing and not model.spec.library:
        raise InternalError(f"The exported graph shows no trace of {min(missing)}.")
    return {last[scope]: path for scope, path in paths.items() if scope in last}


def _describe(graph: onnx.ModelProto, model: Restorer, blocks: list[str], source: Mapping[str, Any]) -> None:
    """Spec and provenance into the metadata; the exporter's traces of local source files go."""
    import onnx

    package = "agileir-export"
    provenance = {
        **source,
        "package": package,
        "version": __version__,
        "torch": version("torch"),
        "weights_sha256": weights_digest(model),
    }
    graph.producer_name, graph.producer_version = package, __version__
    graph.doc_string = graph.graph.doc_string = ""
    del graph.graph.metadata_props[:]
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        del value.metadata_props[:]
    onnx.helper.set_model_props(
        graph,
        {
            SPEC_KEY: json.dumps(model.spec.to_json(), sort_keys=True),
            PROVENANCE_KEY: json.dumps(provenance, sort_keys=True),
            BLOCKS_KEY: json.dumps(blocks),
        },
    )


def weights_digest(model: Restorer) -> str:
    """SHA-256 over names and bytes of a model's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check(graph: onnx.ModelProto, size: tuple[int, int] | None) -> None:
    """Validity in full, and that free dimensions are free."""
    import onnx

    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"The exported graph is not valid ONNX: {error}") from error
    if size is not None:
        return
    for tensor in (graph.graph.input[0], graph.graph.output[0]):
        dims = tensor.type.tensor_type.shape.dim
        frozen = [axis for axis in (0, 2, 3) if not dims[axis].dim_param]
        if frozen:
            raise InternalError(f"The exporter froze dimension {frozen[0]} of {tensor.name}.")
