"""ONNX form of KeySemanticAttention."""

from __future__ import annotations

from ..onnx_text import attend, dictionary_sizes, heads_of_qkv, position_bias, shift_mask
from ..registry import Operator, register

__all__ = ["OPERATOR"]

UNPACK = """
  byte_values = Constant <value_int = 256> ()
  byte_base = Cast <to = 6> (byte_values)
  high_byte = Div (dictionary, byte_base)
  high_part = Mul (high_byte, byte_base)
  low_byte = Sub (dictionary, high_part)
  last_axis = Constant <value_ints = [-1]> ()
  low_byte_1 = Unsqueeze (low_byte, last_axis)
  high_byte_1 = Unsqueeze (high_byte, last_axis)
  bytes = Concat <axis = -1> (low_byte_1, high_byte_1)
  byte_range = Range (zero, byte_values, one)
  byte_column_shape = Constant <value_ints = [-1, 1]> ()
  byte_column = Reshape (byte_range, byte_column_shape)
  bit_powers = Constant <value_ints = [1, 2, 4, 8, 16, 32, 64, 128]> ()
  byte_shifted = Div (byte_column, bit_powers)
  two = Constant <value_int = 2> ()
  byte_bits = Mod <fmod = 1> (byte_shifted, two)
  byte_bits_f = Cast <to = 1> (byte_bits)
  byte_masks = Log (byte_bits_f)
  unpacked = Gather <axis = 0> (byte_masks, bytes)
  unpacked_shape = Concat <axis = 0> (rest_1d, one_1d, tokens_1d, padded_1d)
  restriction_padded = Reshape (unpacked, unpacked_shape)
  restriction_flat = Slice (restriction_padded, axis0, tokens_1d, last_axis)
  restriction_shape = Concat <axis = 0> (batch_1d, rest_1d, one_1d, tokens_1d, tokens_1d)
  restriction = Reshape (restriction_flat, restriction_shape)"""


def body() -> str:
    """Statements of the function: y [B, H, W, C] from qkv, dictionary [n, N, ceil(N/16)] and bias_table.

    A byte of the dictionary selects a row of a 256 x 8 table of 0 and -inf (the logarithm of its bits), so that
    unpacking is one Gather of whole rows. Up to `restriction_flat` everything depends on the dictionary alone: runtimes
    that merge equal nodes unpack it once for all layers that share it.
    """
    addends = """
  restricted_mask = Add (restriction, mask)
  biased = Add (similarity, bias)
  logits = Add (biased, restricted_mask)"""
    start = heads_of_qkv() + position_bias() + shift_mask()
    return start + dictionary_sizes() + UNPACK + attend(addends)


OPERATOR = register(
    Operator(
        name="KeySemanticAttention",
        torch_name="key_semantic_attention",
        inputs=("qkv", "dictionary", "bias_table"),
        attributes=("window_size", "shift_size", "num_heads"),
        output="y",
        integer_tensors=("dictionary",),
        body=body,
        doc="Window attention in which every token attends to its key-semantic dictionary only.",
    )
)
