"""Group shifted window attention (AgileIR): torch operator and ONNX function."""

from .onnx_function import OPERATOR
from .operator import group_shifted_window_attention, plain

__all__ = ["OPERATOR", "group_shifted_window_attention", "plain"]
