"""ONNX form of KeySemanticDictionary."""

from __future__ import annotations

from ..onnx_text import dictionary_sizes, same_region, sizes, window_index, windows_of_x
from ..registry import Operator, register

__all__ = ["OPERATOR"]

SELECT = """
  features = Cast <to = 1> (windows_t)
  features_t = Transpose <perm = [0, 1, 3, 2]> (features)
  similarity = MatMul (features, features_t)
  k_wanted = Constant <value_int : int = @top_k> ()
  k = Min (k_wanted, tokens)
  k_1d = Unsqueeze (k, axis0)
  near_side = Sub (w, s)
  short_side = Min (s, near_side)
  smallest_shifted = Mul (short_side, short_side)
  shifted = Min (s, one)
  straight = Sub (one, shifted)
  smallest_straight = Mul (straight, tokens)
  smallest_region = Add (smallest_shifted, smallest_straight)
  k_beyond_region = Sub (k, smallest_region)
  k_foreign = Max (k_beyond_region, one)
  k_foreign_1d = Unsqueeze (k_foreign, axis0)
  zero_f = Cast <to = 1> (zero)
  lowest = Log (zero_f)
  seen = Squeeze (same, one_1d)
  own = Where (seen, similarity, lowest)
  foreign = Where (seen, lowest, similarity)
  own_value, own_best = TopK <axis = -1, largest = 1, sorted = 1> (own, k_1d)
  foreign_value, foreign_best = TopK <axis = -1, largest = 1, sorted = 1> (foreign, k_foreign_1d)
  candidates = Concat <axis = -1> (own_best, foreign_best)
  last_axis = Constant <value_ints = [-1]> ()
  same_f = Cast <to = 1> (same)
  same_3d = Squeeze (same_f, one_1d)
  own_total_f = ReduceSum <keepdims = 1> (same_3d, last_axis)
  own_total = Cast <to = 7> (own_total_f)
  own_count = Min (own_total, k)
  rank = Range (zero, k, one)
  past_own = GreaterOrEqual (rank, own_count)
  past_own_i = Cast <to = 7> (past_own)
  jump = Sub (k, own_count)
  skip = Mul (past_own_i, jump)
  place = Add (rank, skip)
  chosen_shape = Shape (own_best)
  place_all = Expand (place, chosen_shape)
  chosen = GatherElements <axis = -1> (candidates, place_all)"""

PACK = """
  window_shape = Slice (chosen_shape, axis0, last_axis, axis0)
  empty_shape = Concat <axis = 0> (window_shape, padded_1d)
  empty = ConstantOfShape (empty_shape)
  one_f = Constant <value_float = 1.0> ()
  marks = Expand (one_f, chosen_shape)
  selected = ScatterElements <axis = -1> (empty, chosen, marks)
  bits_shape = Concat <axis = 0> (rest_1d, tokens_1d, words_1d, word_bits_1d)
  bits = Reshape (selected, bits_shape)
  powers_i = Constant <value_ints = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]> ()
  powers_f = Cast <to = 1> (powers_i)
  powers_shape = Constant <value_ints = [16, 1]> ()
  powers = Reshape (powers_f, powers_shape)
  word_values = MatMul (bits, powers)
  word_values_3d = Squeeze (word_values, last_axis)
  dictionary = Cast <to = 6> (word_values_3d)"""


def body() -> str:
    """Statements of the function: dictionary [n, N, ceil(N/16)] from x [B, H, W, C].

    The best tokens of the own region and, where a shift makes regions, the best of the others are sorted apart; a
    row takes all it can from the first list and the rest from the second, which is no longer than the smallest region
    leaves to fill. Similarities must be finite.
    """
    return sizes("x") + window_index() + same_region() + windows_of_x("windows_t") + SELECT + dictionary_sizes() + PACK


OPERATOR = register(
    Operator(
        name="KeySemanticDictionary",
        torch_name="key_semantic_dictionary",
        inputs=("x",),
        attributes=("window_size", "shift_size", "top_k"),
        output="dictionary",
        integer_tensors=("dictionary",),
        body=body,
        doc="The top_k most similar tokens of every token of a window, as a packed set.",
    )
)
