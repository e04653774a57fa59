"""ONNX form of KeySemanticDictionary."""

from __future__ import annotations

from collections.abc import Mapping

from ..onnx_text import integers, same_region, sizes, window_index, windows_of_x
from ..registry import Shapes

__all__ = ["body", "statics"]


def statics(shapes: Shapes, attributes: Mapping[str, int]) -> dict[str, int]:
    """Window size, and whether every shift region holds `top_k` tokens: the smallest is a corner of the window.

    An unshifted node is judged as if it were shifted by half a window, as its neighbours usually are: all nodes of a
    model must agree.
    """
    del shapes
    window_size, shift = attributes["window_size"], attributes["shift_size"]
    half = window_size // 2
    fits = shift in (0, half) and attributes["top_k"] <= half * half
    return {"window_size": window_size, "region_holds_all": int(fits)}


SELECT = """
  features = Cast <to = 1> (windows_t)
  features_t = Transpose <perm = [0, 1, 3, 2]> (features)
  similarity = MatMul (features, features_t)
  k_wanted = Constant <value_int : int = @top_k> ()
  k_wanted_1d = Reshape (k_wanted, one_1d)
  k = Min (k_wanted_1d, tokens)
  nought = Constant <value = float[1, 1, 1, 1] {0.0}> ()
  lowest = Log (nought)
  own = Where (same_here, similarity, lowest)
  own_value, own_best = TopK <axis = -1, largest = 1, sorted = 1> (own, k)
  windows_shape = Shape <start = 0, end = 3> (own_best)
  empty_shape = Concat <axis = 0> (windows_shape, padded)
  empty = ConstantOfShape (empty_shape)"""

ALL_OWN = """
  marks_shape = Shape (own_best)
  marks = ConstantOfShape <value = float[1] {1.0}> (marks_shape)
  chosen = ScatterElements <axis = -1> (empty, own_best, marks)"""

OWN_AND_FOREIGN = """
  near_side = Sub (w, s)
  short_side = Min (s, near_side)
  smallest_shifted = Mul (short_side, short_side)
  smallest_region = Where (is_shifted, smallest_shifted, tokens)
  k_beyond_region = Sub (k, smallest_region)
  k_foreign = Max (k_beyond_region, one_1d)
  foreign = Where (same_here, lowest, similarity)
  foreign_value, foreign_best = TopK <axis = -1, largest = 1, sorted = 1> (foreign, k_foreign)
  is_own = Greater (own_value, lowest)
  own_marks = Cast <to = 1> (is_own)
  own_count = ReduceSum <keepdims = 1> (own_marks, last_axis)
  k_f = Cast <to = 1> (k)
  wanted = Sub (k_f, own_count)
  foreign_scalar = Squeeze (k_foreign)
  rank = Range (zero, foreign_scalar, one)
  rank_f = Cast <to = 1> (rank)
  is_taken = Less (rank_f, wanted)
  foreign_marks = Cast <to = 1> (is_taken)
  chosen_own = ScatterElements <axis = -1> (empty, own_best, own_marks)
  chosen_foreign = ScatterElements <axis = -1> (empty, foreign_best, foreign_marks)
  chosen = Max (chosen_own, chosen_foreign)"""

PACK = """
  bits = Reshape (chosen, bits_shape)
  weighed = Mul (bits, powers)
  words = ReduceSum <keepdims = 0> (weighed, last_axis)
  dictionary = Cast <to = 6> (words)"""


def body(window_size: int, region_holds_all: int) -> str:
    """Statements of the function: dictionary [n, N, ceil(N/16)] from x [B, H, W, C].

    A row takes the best tokens of its own region. If these may be too few, the best tokens of other regions are sorted
    apart: the first list then ends with -inf where its own tokens end, and the second, no longer than the smallest
    region leaves to fill, gives the rest. Similarities must be finite.

    Args:
        window_size: w.
        region_holds_all: 1 if no region of any node has fewer than `top_k` tokens, else 0.
    """
    tokens = window_size**2
    words = -(-tokens // 16)
    powers = ", ".join(f"{2**bit}.0" for bit in range(16))
    return (
        sizes("x", window_size)
        + window_index(window_size)
        + same_region(window_size)
        + integers("same_shape", [1, -1, tokens, tokens])
        + integers("padded", [16 * words])
        + integers("bits_shape", [-1, tokens, words, 16])
        + integers("last_axis", [-1])
        + f"""
  powers = Constant <value = float[1, 1, 1, 16] {{{powers}}}> ()
  same_here = Reshape (same, same_shape)"""
        + windows_of_x("windows_t", window_size)
        + SELECT
        + (ALL_OWN if region_holds_all else OWN_AND_FOREIGN)
        + PACK
    )
