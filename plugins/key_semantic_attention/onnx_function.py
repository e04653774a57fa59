"""ONNX form of KeySemanticAttention."""

from __future__ import annotations

from ..onnx_text import attend, heads_of_qkv, integers, position_bias, shift_mask

__all__ = ["body"]


def _unpack(tokens: int) -> str:
    """``restriction`` [B, nW, 1, N, N] (float32) from ``dictionary``: 0 for a chosen key, else -inf.

    A byte of the dictionary selects a row of a 256 x 8 table of 0 and -inf (the logarithm of its bits), so that
    unpacking is one Gather of whole rows. All but the last Reshape depends on the dictionary alone: runtimes that merge
    equal nodes unpack it once for all layers that share it.
    """
    bits = [f"{byte >> bit & 1}.0" for byte in range(256) for bit in range(8)]
    text = (
        integers("last_axis", [-1])
        + f"""
  byte_base = Constant <value = int32[1, 1, 1] {{256}}> ()
  byte_bits = Constant <value = float[256, 8] {{{", ".join(bits)}}}> ()
  byte_masks = Log (byte_bits)
  high_byte = Div (dictionary, byte_base)
  high_part = Mul (high_byte, byte_base)
  low_byte = Sub (dictionary, high_part)
  low_byte_1 = Unsqueeze (low_byte, last_axis)
  high_byte_1 = Unsqueeze (high_byte, last_axis)
  bytes = Concat <axis = -1> (low_byte_1, high_byte_1)
  unpacked = Gather <axis = 0> (byte_masks, bytes)"""
    )
    padding = -tokens % 16
    if padding:
        text += integers("padded_shape", [-1, 1, tokens, tokens + padding])
        text += integers("kept", [tokens, padding])
        text += """
  unpacked_rows = Reshape (unpacked, padded_shape)
  unpacked_square, padding = Split <axis = 3> (unpacked_rows, kept)"""
    return (
        text
        + integers("square", [-1, 1, tokens, tokens])
        + f"""
  restriction_shape = Concat <axis = 0> (batch, square)
  restriction = Reshape ({"unpacked_square" if padding else "unpacked"}, restriction_shape)"""
    )


def body(window_size: int) -> str:
    """Statements of the function: y [B, H, W, C] from qkv, dictionary [n, N, ceil(N/16)] and bias_table."""
    addends = """
  restricted_mask = Add (restriction, mask)
  biased = Add (similarity, bias)
  logits = Add (biased, restricted_mask)"""
    start = heads_of_qkv(window_size) + position_bias(window_size) + shift_mask(window_size)
    return start + _unpack(window_size**2) + attend(addends)
