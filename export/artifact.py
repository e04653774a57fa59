"""An exported ONNX file and what it says of itself in its metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OnnxFileError
from ..models.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BLOCKS_KEY",
    "CONVERSION_KEY",
    "PROVENANCE_KEY",
    "RESCALE_KEY",
    "RESCALE_REPORT_KEY",
    "SPEC_KEY",
    "OnnxArtifact",
    "read_artifact",
]

SPEC_KEY = "agileir.spec"
PROVENANCE_KEY = "agileir.provenance"
BLOCKS_KEY = "agileir.blocks"
CONVERSION_KEY = "agileir.conversion"
RESCALE_KEY = "agileir.rescale"
RESCALE_REPORT_KEY = "agileir.rescale_report"


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX file written by this package.

    Attributes:
        path: Where it lies.
        sha256: Digest of its bytes.
        precision: Type of its weights: ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"int8"``.
        profile: Fixed sizes by dimension name (``height``); free dimensions are absent.
        spec: The model's spec.
        provenance: Versions and source of the weights.
        blocks: Names of the block outputs, in order; each is a tensor name and a module path.
        nodes: Number of nodes in the main graph.
        operators: Number of nodes by operator of this package (empty where they are decomposed).
        conversion: How the file was brought to half precision (`passes.Conversion.to_json`); empty where it was not.
        rescale: k by block, where the block's output in the file is the model's divided by ``2^k``.
        rescale_report: Why, and the proof that nothing else changed (`RescaleReport.to_json`); empty without rescale.
    """

    path: Path
    sha256: str
    precision: str
    profile: dict[str, int]
    spec: ModelSpec
    provenance: dict[str, Any]
    blocks: tuple[str, ...]
    nodes: int
    operators: dict[str, int]
    conversion: dict[str, Any] = field(default_factory=dict)
    rescale: dict[str, int] = field(default_factory=dict)
    rescale_report: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The artifact as a JSON object."""
        return dataclasses.asdict(self) | {"path": str(self.path), "blocks": list(self.blocks)}


def read_artifact(path: str | Path) -> OnnxArtifact:
    """Reads what an ONNX file says of itself.

    Raises:
        OnnxFileError: The file is missing, not ONNX, or was not written by this package.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise OnnxFileError(f"{path}: the file {kind}.", fix="Check the path.")
    data = path.read_bytes()
    model = parse_onnx(data, path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if SPEC_KEY not in metadata:
        raise OnnxFileError(
            f"{path}: an ONNX file, but not one of ours: its metadata has no {SPEC_KEY}.",
            fix="Export it with `agileir-export onnx`.",
        )
    try:
        spec = ModelSpec.from_json(json.loads(metadata[SPEC_KEY]))
        provenance = json.loads(metadata.get(PROVENANCE_KEY, "{}"))
        blocks = json.loads(metadata.get(BLOCKS_KEY, "[]"))
        conversion = json.loads(metadata.get(CONVERSION_KEY, "{}"))
        exponents = json.loads(metadata.get(RESCALE_KEY, "{}"))
        report = json.loads(metadata.get(RESCALE_REPORT_KEY, "{}"))
        objects = ((PROVENANCE_KEY, provenance), (CONVERSION_KEY, conversion), (RESCALE_REPORT_KEY, report))
        for key, value in objects:
            if not isinstance(value, dict):
                raise ValueError(f"{key} is not a JSON object")
        if not isinstance(blocks, list) or not all(isinstance(name, str) for name in blocks):
            raise ValueError(f"{BLOCKS_KEY} is not a list of names")
        if not isinstance(exponents, dict) or not all(isinstance(k, int) for k in exponents.values()):
            raise ValueError(f"{RESCALE_KEY} is not an object of integers")
    except ValueError as error:
        raise OnnxFileError(
            f"{path}: its metadata cannot be understood: {error}.",
            why="It may come from another version of this package.",
            fix="Export it again.",
        ) from error
    return OnnxArtifact(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        precision=_precision(model),
        profile=_fixed_sizes(model),
        spec=spec,
        provenance=provenance,
        blocks=tuple(blocks),
        nodes=len(model.graph.node),
        operators=_operators(model),
        conversion=conversion,
        rescale=exponents,
        rescale_report=report,
    )


def parse_onnx(data: bytes, path: Path) -> onnx.ModelProto:
    """The model that a file's bytes hold; weights in files of their own stay there.

    Args:
        data: What the file holds.
        path: The file, for messages.

    Raises:
        OnnxFileError: Not ONNX, or damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise OnnxFileError(
            f"{path}: not an ONNX file, or a damaged one ({len(data)} bytes).",
            fix="Export it again.",
        ) from error
    if not model.graph.node or not model.graph.input:
        raise OnnxFileError(f"{path}: not an ONNX file: it holds no graph with an input.", fix="Check the path.")
    return model


def _precision(model: onnx.ModelProto) -> str:
    """The narrowest type among the weights."""
    import onnx

    order = {
        onnx.TensorProto.INT8: "int8",
        onnx.TensorProto.BFLOAT16: "bfloat16",
        onnx.TensorProto.FLOAT16: "float16",
    }
    found = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantised:
        return "int8"
    return next((name for kind, name in order.items() if kind in found), "float32")


def _fixed_sizes(model: onnx.ModelProto) -> dict[str, int]:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    names = ("batch", "channels", "height", "width")
    return {
        name: dim.dim_value
        for name, dim in zip(names, dims, strict=False)
        if dim.HasField("dim_value") and name != "channels"
    }


def _operators(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator, for the operators that bring a function body."""
    counts = {function.name: 0 for function in model.functions}
    for node in model.graph.node:
        if node.op_type in counts:
            counts[node.op_type] += 1
    return counts
