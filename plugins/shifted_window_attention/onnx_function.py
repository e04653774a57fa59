"""ONNX form of ShiftedWindowAttention."""

from __future__ import annotations

from ..onnx_text import attend, heads_of_qkv, position_bias, shift_mask

__all__ = ["body"]


def body(window_size: int) -> str:
    """Statements of the function: y [B, H, W, C] from qkv [B, H, W, 3C] and bias_table [(2w-1)^2, heads]."""
    addends = """
  masked_bias = Add (bias, mask)
  logits = Add (similarity, masked_bias)"""
    return heads_of_qkv(window_size) + position_bias(window_size) + shift_mask(window_size) + attend(addends)
