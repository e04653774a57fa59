"""Shifted window attention (SwinIR): torch operator and ONNX function."""

from .onnx_function import OPERATOR
from .operator import shifted_window_attention

__all__ = ["OPERATOR", "shifted_window_attention"]
