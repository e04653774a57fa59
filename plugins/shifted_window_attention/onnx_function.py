"""ONNX form of ShiftedWindowAttention."""

from __future__ import annotations

from ..onnx_text import attend, heads_of_qkv, position_bias, shift_mask
from ..registry import Operator, register

__all__ = ["OPERATOR"]


def body(window_size: int) -> str:
    """Statements of the function: y [B, H, W, C] from qkv [B, H, W, 3C] and bias_table [(2w-1)^2, heads]."""
    addends = """
  masked_bias = Add (bias, mask)
  logits = Add (similarity, masked_bias)"""
    return heads_of_qkv(window_size) + position_bias(window_size) + shift_mask(window_size) + attend(addends)


OPERATOR = register(
    Operator(
        name="ShiftedWindowAttention",
        torch_name="shifted_window_attention",
        inputs=("qkv", "bias_table"),
        attributes=("window_size", "shift_size", "num_heads"),
        output="y",
        body=body,
        doc="Window attention with cyclic shift and relative position bias on an unshifted image.",
    )
)
