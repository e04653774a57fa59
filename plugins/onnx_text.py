"""Statements in ONNX text that the function bodies share.

A body cuts windows with one Gather whose index does roll, partition and head split at once, and puts results back
with one Gather more: rows of d numbers are copied whole, nothing is transposed, and a shift costs nothing. Index
arithmetic runs on vectors as long as a side of the image. What depends on attributes and weights alone folds to
constants when the runtime loads the model; equal index arithmetic of several nodes is computed once, because ONNX
Runtime and TensorRT merge equal nodes. All numbers are >= 0, so `Mod <fmod = 1>` is the remainder; with fmod = 0,
TensorRT would spend ten layers on the sign.

Names that chunks leave behind for later ones are listed in each docstring; sizes ending in ``_1d`` have shape [1].
"""

from __future__ import annotations

__all__ = [
    "attend",
    "dictionary_sizes",
    "heads_of_qkv",
    "place_in_windows",
    "position_bias",
    "same_region",
    "shift_mask",
    "sizes",
    "window_index",
    "windows_of_x",
]


def sizes(image: str) -> str:
    """Sizes and constants: ``height, width, tokens, w, s, batch_1d, channels_1d`` and more."""
    return f"""
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  axis0 = Constant <value_ints = [0]> ()
  one_1d = Constant <value_ints = [1]> ()
  rest_1d = Constant <value_ints = [-1]> ()
  w = Constant <value_int : int = @window_size> ()
  s = Constant <value_int : int = @shift_size> ()
  w_1d = Unsqueeze (w, axis0)
  tokens_1d = Mul (w_1d, w_1d)
  tokens = Squeeze (tokens_1d)
  image_shape = Shape ({image})
  batch_1d, height_1d, width_1d, channels_1d = Split <axis = 0, num_outputs = 4> (image_shape)
  height = Squeeze (height_1d)
  width = Squeeze (width_1d)
  y_range = Range (zero, height, one)
  x_range = Range (zero, width, one)"""


def window_index() -> str:
    """Row ``y_window`` [nH, 1, w, 1] and column ``x_window`` [nW, 1, w] in the image of tokens of rolled windows."""
    return """
  y_shape = Concat <axis = 0> (rest_1d, one_1d, w_1d, one_1d)
  x_shape = Concat <axis = 0> (rest_1d, one_1d, w_1d)
  y_shifted = Add (y_range, s)
  x_shifted = Add (x_range, s)
  y_source = Mod <fmod = 1> (y_shifted, height)
  x_source = Mod <fmod = 1> (x_shifted, width)
  y_window = Reshape (y_source, y_shape)
  x_window = Reshape (x_source, x_shape)"""


def windows_of_x(output: str) -> str:
    """Windows of the image ``x``: `output` [B, nW, N, C]. Needs `sizes` and `window_index`."""
    return f"""
  row_start = Mul (y_window, width)
  pixel = Add (row_start, x_window)
  token_shape = Concat <axis = 0> (rest_1d, tokens_1d)
  token_index = Reshape (pixel, token_shape)
  x_rows_shape = Concat <axis = 0> (batch_1d, rest_1d, channels_1d)
  x_rows = Reshape (x, x_rows_shape)
  {output} = Gather <axis = 1> (x_rows, token_index)"""


def dictionary_sizes() -> str:
    """``words_1d`` of a dictionary row, ``padded_1d`` = 16 * words, ``word_bits_1d``. Needs `sizes`."""
    return """
  word_bits_1d = Constant <value_ints = [16]> ()
  last_bit = Constant <value_ints = [15]> ()
  tokens_up = Add (tokens_1d, last_bit)
  words_1d = Div (tokens_up, word_bits_1d)
  padded_1d = Mul (words_1d, word_bits_1d)"""


def same_region() -> str:
    """Whether two tokens of a window lie in one shift region, ``same`` [m, 1, N, N] (bool). Needs `window_index`.

    Within a window, regions differ exactly where one token came round the border and the other did not: its row or
    column in the image is less than s. m is the number of windows of an image, or 1 where nothing is shifted: there
    all tokens of the only window looked at share a region, and the mask costs nothing.
    """
    return """
  y_wrapped = Less (y_window, s)
  x_wrapped = Less (x_window, s)
  y_part = Cast <to = 7> (y_wrapped)
  x_part = Cast <to = 7> (x_wrapped)
  y_part_2 = Add (y_part, y_part)
  region_grid = Add (y_part_2, x_part)
  key_shape = Concat <axis = 0> (rest_1d, one_1d, one_1d, tokens_1d)
  region_all = Reshape (region_grid, key_shape)
  all_windows = Constant <value_int = 2147483646> ()
  masked_more = Mul (s, all_windows)
  masked_1d = Add (masked_more, one_1d)
  region_key = Slice (region_all, axis0, masked_1d, axis0)
  region_query = Transpose <perm = [0, 1, 3, 2]> (region_key)
  same = Equal (region_query, region_key)"""


def shift_mask() -> str:
    """``mask`` [m, 1, N, N] (float32): 0 where `same_region`, else -100."""
    return (
        same_region()
        + """
  zero_f = Constant <value_float = 0.0> ()
  masked_f = Constant <value_float = -100.0> ()
  mask = Where (same, zero_f, masked_f)"""
    )


def heads_of_qkv() -> str:
    """``query`` (scaled by d^-0.5), ``key`` and ``value`` [B, nW, heads, N, d] of ``qkv`` [B, H, W, 3C]; ``heads``."""
    return (
        sizes("qkv")
        + window_index()
        + """
  heads = Constant <value_int : int = @num_heads> ()
  parts = Constant <value_int = 3> ()
  heads_3 = Mul (heads, parts)
  head_width_1d = Div (channels_1d, heads_3)
  row_units = Mul (width, heads_3)
  row_start = Mul (y_window, row_units)
  column_start = Mul (x_window, heads_3)
  pixel = Add (row_start, column_start)
  token_shape = Concat <axis = 0> (rest_1d, one_1d, tokens_1d)
  token_index = Reshape (pixel, token_shape)
  head_range = Range (zero, heads, one)
  head_units = Unsqueeze (head_range, one_1d)
  query_index = Add (token_index, head_units)
  key_index = Add (query_index, heads)
  value_index = Add (key_index, heads)
  qkv_rows_shape = Concat <axis = 0> (batch_1d, rest_1d, head_width_1d)
  qkv_rows = Reshape (qkv, qkv_rows_shape)
  query_raw = Gather <axis = 1> (qkv_rows, query_index)
  key = Gather <axis = 1> (qkv_rows, key_index)
  value = Gather <axis = 1> (qkv_rows, value_index)
  head_width_f = Cast <to = 1> (head_width_1d)
  root_f = Sqrt (head_width_f)
  scale_f = Reciprocal (root_f)
  scale = CastLike (scale_f, qkv)
  query = Mul (query_raw, scale)"""
    )


def attend(addends: str) -> str:
    """Softmax attention of `heads_of_qkv`: statements `addends` make ``logits`` from ``similarity``; leaves ``y``."""
    return (
        """
  key_t = Transpose <perm = [0, 1, 2, 4, 3]> (key)
  similarity_t = MatMul (query, key_t)
  similarity = Cast <to = 1> (similarity_t)"""
        + addends
        + """
  probability_f = Softmax <axis = -1> (logits)
  probability = CastLike (probability_f, qkv)
  attended = MatMul (probability, value)
  rows_shape = Concat <axis = 0> (batch_1d, rest_1d, head_width_1d)
  attended_rows = Reshape (attended, rows_shape)"""
        + place_in_windows("heads")
        + """
  head_stride = Mul (head_range, tokens)
  first_place = Unsqueeze (place, rest_1d)
  head_place = Add (first_place, head_stride)
  gathered = Gather <axis = 1> (attended_rows, head_place)
  result_shape = Constant <value_ints = [0, 0, 0, -1]> ()
  y = Reshape (gathered, result_shape)"""
    )


def position_bias() -> str:
    """``bias`` [heads, N, N] (float32) from ``bias_table``; folds to a constant.

    The table's row for query n and key m is ``place(n) - place(m) + place(N-1)`` with
    ``place(n) = (2w-1) * (n div w) + n mod w = (w-1) * (n div w) + n``.
    """
    return """
  token = Range (zero, tokens, one)
  token_row = Div (token, w)
  w_less_1 = Sub (w, one)
  row_part = Mul (token_row, w_less_1)
  key_place = Add (row_part, token)
  last_row = Mul (w_less_1, w)
  offset = Add (last_row, last_row)
  query_place = Add (key_place, offset)
  query_column = Unsqueeze (query_place, one_1d)
  entry = Sub (query_column, key_place)
  table_f = Cast <to = 1> (bias_table)
  table_t = Transpose <perm = [1, 0]> (table_f)
  bias = Gather <axis = 1> (table_t, entry)"""


def place_in_windows(units: str) -> str:
    """Where windows [nW, units, N] hold the image's pixels: ``place`` [H, W], the row of the first unit.

    `units` is a scalar's name. A pixel in row r of the rolled image lies in row i = r mod w of its window, and
    ``(r - i) * W * units + i * w`` rows come before the pixels of row r; columns alike, with w and 1 for W and w.
    """
    return f"""
  y_unshift = Sub (height, s)
  x_unshift = Sub (width, s)
  y_moved = Add (y_range, y_unshift)
  x_moved = Add (x_range, x_unshift)
  y_rolled = Mod <fmod = 1> (y_moved, height)
  x_rolled = Mod <fmod = 1> (x_moved, width)
  y_inside = Mod <fmod = 1> (y_rolled, w)
  x_inside = Mod <fmod = 1> (x_rolled, w)
  y_stride = Mul (width, {units})
  x_stride = Mul (w, {units})
  y_less = Sub (y_stride, w)
  x_less = Sub (x_stride, one)
  y_far = Mul (y_rolled, y_stride)
  x_far = Mul (x_rolled, x_stride)
  y_back = Mul (y_inside, y_less)
  x_back = Mul (x_inside, x_less)
  y_place = Sub (y_far, y_back)
  x_place = Sub (x_far, x_back)
  y_column = Unsqueeze (y_place, one_1d)
  place = Add (y_column, x_place)"""
