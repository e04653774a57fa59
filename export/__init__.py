"""Export: torch models to ONNX files that carry their spec."""

from .artifact import OnnxArtifact, read_artifact
from .exporter import DEFAULT_OPSET, INPUT_NAME, OUTPUT_NAME, export_onnx

__all__ = [
    "DEFAULT_OPSET",
    "INPUT_NAME",
    "OUTPUT_NAME",
    "OnnxArtifact",
    "export_onnx",
    "read_artifact",
]
