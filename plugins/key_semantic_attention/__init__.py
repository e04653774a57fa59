"""Key-semantic attention (SemanIR): torch operator and ONNX function."""

from .onnx_function import OPERATOR
from .operator import key_semantic_attention

__all__ = ["OPERATOR", "key_semantic_attention"]
