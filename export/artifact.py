"""An exported ONNX file and what it says of itself in its metadata."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OnnxFileError
from ..files import write_atomic
from ..json_form import parse_json, plain
from ..models.spec import ModelSpec

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

__all__ = [
    "BLOCKS_KEY",
    "CONVERSION_KEY",
    "PROVENANCE_KEY",
    "RESCALE_KEY",
    "RESCALE_REPORT_KEY",
    "SPEC_KEY",
    "OnnxArtifact",
    "artifact_of",
    "parse_onnx",
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
    """An ONNX model of this package, in memory: what the steps of the way take and give.

    Attributes:
        model: The model, weights included; not to be changed.
        data: Its bytes, as they are or would be in a file.
        path: Where it lies; None where it was not written.
        precision: Type of its weights: ``"float32"``, ``"float16"``, ``"bfloat16"`` or ``"int8"``.
        fixed_sizes: By dimension name (``height``); free dimensions are absent. Called ``profile`` in JSON.
        spec: The model's spec.
        provenance: Versions and source of the weights.
        blocks: Names of the block outputs, in order; each is a tensor name and a module path.
        nodes: Number of nodes in the main graph.
        operators: Number of nodes by operator of this package (empty where they are decomposed).
        conversion: How the file was brought to half precision (`passes.Conversion.to_json`); empty where it was not.
        rescale: k by block, where the block's output in the file is the model's divided by ``2^k``.
        rescale_report: Why, and the proof that nothing else changed (`RescaleReport.to_json`); empty without rescale.
    """

    model: onnx.ModelProto = field(repr=False, compare=False)
    data: bytes = field(repr=False)
    path: Path | None
    precision: str
    fixed_sizes: dict[str, int]
    spec: ModelSpec
    provenance: dict[str, Any]
    blocks: tuple[str, ...]
    nodes: int
    operators: dict[str, int]
    conversion: dict[str, Any] = field(default_factory=dict)
    rescale: dict[str, int] = field(default_factory=dict)
    rescale_report: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Digest of its bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def name(self) -> str:
        """What messages call it: its path, or its model with the precision."""
        return f"{self.spec.name} ({self.precision})" if self.path is None else str(self.path)

    @property
    def file_name(self) -> str:
        """The name of its file, or the one that a file of it would have."""
        return f"{self.spec.name}.onnx" if self.path is None else self.path.name

    def write(self, path: str | Path) -> OnnxArtifact:
        """Writes it, whole or not at all; an existing file is replaced.

        Returns:
            The artifact that lies there.

        Raises:
            OutputError: The file cannot be written.
        """
        write_atomic(path, self.data, overwrite=True)
        return replace(self, path=Path(path))

    def to_json(self) -> dict[str, Any]:
        """The artifact as a JSON object, without the model."""
        names = (each.name for each in fields(self) if each.name not in ("model", "data"))
        facts = {"profile" if name == "fixed_sizes" else name: getattr(self, name) for name in names}
        return {name: plain(value) for name, value in facts.items()} | {"sha256": self.sha256}


def read_artifact(path: str | Path) -> OnnxArtifact:
    """Reads an ONNX file of this package.

    Raises:
        OnnxFileError: The file is missing, not ONNX, or was not written by this package.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise OnnxFileError(f"{path}: the file {kind}.", fix="Check the path.")
    data = path.read_bytes()
    model = parse_onnx(data, path)
    if len(data) < model.ByteSize() // 2:  # weights in files of their own are a part of it
        data = model.SerializeToString(deterministic=True)
    return _described(model, data, path, str(path))


def artifact_of(model: onnx.ModelProto) -> OnnxArtifact:
    """The artifact of a model in memory; the same model gives the same bytes.

    Raises:
        OnnxFileError: The model's metadata does not describe it.
    """
    return _described(model, model.SerializeToString(deterministic=True), None, "the model")


def _described(model: onnx.ModelProto, data: bytes, path: Path | None, name: str) -> OnnxArtifact:
    """The artifact of a model, from its metadata."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if SPEC_KEY not in metadata:
        raise OnnxFileError(
            f"{name}: an ONNX file, but not one of ours: its metadata has no {SPEC_KEY}.",
            fix="Export it with `agileir-export onnx`.",
        )
    try:
        spec = ModelSpec.from_json(parse_json(metadata[SPEC_KEY]))
        objects = (PROVENANCE_KEY, CONVERSION_KEY, RESCALE_KEY, RESCALE_REPORT_KEY)
        found = {key: parse_json(metadata.get(key, "{}")) for key in objects}
        blocks = parse_json(metadata.get(BLOCKS_KEY, "[]"))
        for key, value in found.items():
            if not isinstance(value, dict):
                raise ValueError(f"{key} is not {'an object of integers' if key == RESCALE_KEY else 'a JSON object'}")
        if not isinstance(blocks, list) or not all(isinstance(name, str) for name in blocks):
            raise ValueError(f"{BLOCKS_KEY} is not a list of names")
        if not all(isinstance(k, int) for k in found[RESCALE_KEY].values()):
            raise ValueError(f"{RESCALE_KEY} is not an object of integers")
    except ValueError as error:
        raise OnnxFileError(
            f"{name}: its metadata cannot be understood: {error}.",
            why="It may come from another version of this package.",
            fix="Export it again.",
        ) from error
    return OnnxArtifact(
        model=model,
        data=data,
        path=path,
        precision=_precision(model),
        fixed_sizes=_fixed_sizes(model),
        spec=spec,
        provenance=found[PROVENANCE_KEY],
        blocks=tuple(blocks),
        nodes=len(model.graph.node),
        operators=_operators(model),
        conversion=found[CONVERSION_KEY],
        rescale=found[RESCALE_KEY],
        rescale_report=found[RESCALE_REPORT_KEY],
    )


def parse_onnx(data: bytes, path: Path) -> onnx.ModelProto:
    """The model that a file's bytes hold, with the weights that lie in files of their own beside it.

    Args:
        data: What the file holds.
        path: The file.

    Raises:
        OnnxFileError: Not ONNX, damaged, or without the files of its weights.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import load_external_data_for_model

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise OnnxFileError(
            f"{path}: not an ONNX file, or a damaged one ({len(data)} bytes).",
            fix="Export it again.",
        ) from error
    if not _is_text(model):
        raise OnnxFileError(f"{path}: a damaged ONNX file: a name in it is no text.", fix="Export it again.")
    if not model.graph.node or not model.graph.input:
        raise OnnxFileError(f"{path}: not an ONNX file: it holds no graph with an input.", fix="Check the path.")
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        raise OnnxFileError(f"{path}: a damaged ONNX file: it names no opset.", fix="Export it again.")
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise OnnxFileError(
            f"{path}: the file of its weights beside it cannot be read: {error}.",
            fix="Put the file back beside it, or export it again.",
        ) from error
    return model


def _is_text(message: Message) -> bool:
    """Whether all strings of a protobuf message are UTF-8; the parser lets others pass: as bytes, or a later error."""
    from google.protobuf.message import Message

    try:
        for field_, value in message.ListFields():
            if field_.type not in (field_.TYPE_STRING, field_.TYPE_MESSAGE):
                continue
            for each in (value,) if isinstance(value, str | bytes | Message) else value:
                if not (_is_text(each) if isinstance(each, Message) else isinstance(each, str)):
                    return False
    except UnicodeDecodeError:
        return False
    return True


def _precision(model: onnx.ModelProto) -> str:
    """The narrowest type among the weights."""
    import onnx

    order = {
        onnx.TensorProto.INT8: "int8",
        onnx.TensorProto.BFLOAT16: "bfloat16",
        onnx.TensorProto.FLOAT16: "float16",
    }
    found = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
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
    counts = Counter(node.op_type for node in model.graph.node)
    return {function.name: counts[function.name] for function in model.functions}
