"""Export: torch models to ONNX files that carry their spec. Reading a file's spec loads no PyTorch."""

from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .artifact import OnnxArtifact, read_artifact

if TYPE_CHECKING:
    from .exporter import DEFAULT_OPSET, INPUT_NAME, OUTPUT_NAME, export_onnx

__all__ = [
    "DEFAULT_OPSET",
    "INPUT_NAME",
    "OUTPUT_NAME",
    "OnnxArtifact",
    "export_onnx",
    "read_artifact",
]

__getattr__ = lazy_attributes(
    __name__,
    dict.fromkeys(("DEFAULT_OPSET", "INPUT_NAME", "OUTPUT_NAME", "export_onnx"), ".exporter"),
)
