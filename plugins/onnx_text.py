"""Statements in ONNX text that the function bodies share.

A body cuts windows with one Gather whose index does roll, partition and head split at once, and puts results back
with one Gather more: rows of d numbers are copied whole, nothing is transposed, and a shift costs nothing. Index
arithmetic runs on vectors as long as a side of the image. What depends on attributes and weights alone folds to
constants when the runtime loads the model.

Names that chunks leave behind for later ones are listed in each docstring; sizes ending in ``_1d`` have shape [1].
"""

from __future__ import annotations

__all__ = [
    "attend",
    "dictionary_sizes",
    "heads_of_qkv",
    "position_bias",
    "same_region",
    "shift_mask",
    "sizes",
    "to_image",
    "window_index",
    "windows_of_x",
]


def sizes(image: str) -> str:
    """Sizes and constants: ``height, width, rows, columns, channels, tokens, w, s`` and their ``_1d`` forms."""
    return f"""
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  axis0 = Constant <value_ints = [0]> ()
  one_1d = Constant <value_ints = [1]> ()
  rest_1d = Constant <value_ints = [-1]> ()
  w = Constant <value_int : int = @window_size> ()
  s = Constant <value_int : int = @shift_size> ()
  w_1d = Unsqueeze (w, axis0)
  tokens = Mul (w, w)
  tokens_1d = Unsqueeze (tokens, axis0)
  image_shape = Shape ({image})
  batch_1d, height_1d, width_1d, channels_1d = Split <axis = 0, num_outputs = 4> (image_shape)
  height = Squeeze (height_1d)
  width = Squeeze (width_1d)
  channels = Squeeze (channels_1d)
  rows = Div (height, w)
  columns = Div (width, w)
  rows_1d = Unsqueeze (rows, axis0)
  columns_1d = Unsqueeze (columns, axis0)
  y_range = Range (zero, height, one)
  x_range = Range (zero, width, one)"""


def window_index(units: str) -> str:
    """Where tokens of rolled windows lie: ``window_rows`` [nH, 1, 1, w, 1] and ``window_columns`` [1, nW, 1, 1, w].

    Their sum is ``(row*W + column) * units``: the number of the first of the `units` rows that hold one pixel. Leaves
    ``by_row_shape`` and ``by_column_shape`` behind.
    """
    return f"""
  by_row_shape = Concat <axis = 0> (rows_1d, one_1d, one_1d, w_1d, one_1d)
  by_column_shape = Concat <axis = 0> (one_1d, columns_1d, one_1d, one_1d, w_1d)
  y_shifted = Add (y_range, s)
  x_shifted = Add (x_range, s)
  y_source = Mod (y_shifted, height)
  x_source = Mod (x_shifted, width)
  row_units = Mul (width, {units})
  y_units = Mul (y_source, row_units)
  x_units = Mul (x_source, {units})
  window_rows = Reshape (y_units, by_row_shape)
  window_columns = Reshape (x_units, by_column_shape)"""


def windows_of_x(output: str) -> str:
    """Windows of the image ``x``: `output` [B, nW, N, C]. Needs `sizes` and a `window_index` of one unit."""
    return f"""
  token_index = Add (window_rows, window_columns)
  x_rows_shape = Concat <axis = 0> (batch_1d, rest_1d, channels_1d)
  x_rows = Reshape (x, x_rows_shape)
  windows_x = Gather <axis = 1> (x_rows, token_index)
  windows_shape = Concat <axis = 0> (batch_1d, rest_1d, tokens_1d, channels_1d)
  {output} = Reshape (windows_x, windows_shape)"""


def dictionary_sizes() -> str:
    """``words`` of a dictionary row, ``padded`` = 16 * words, ``word_bits``, and their ``_1d`` forms. Needs `sizes`."""
    return """
  word_bits = Constant <value_int = 16> ()
  last_bit = Constant <value_int = 15> ()
  tokens_up = Add (tokens, last_bit)
  words = Div (tokens_up, word_bits)
  padded = Mul (words, word_bits)
  word_bits_1d = Unsqueeze (word_bits, axis0)
  words_1d = Unsqueeze (words, axis0)
  padded_1d = Unsqueeze (padded, axis0)"""


def same_region() -> str:
    """Whether two tokens of a window lie in one shift region, ``same`` [m, 1, N, N] (bool). Needs `window_index`.

    A rolled row r has region ``[r >= H-w] + [r >= H-s]``. m is the number of windows of an image, or 1 where nothing
    is shifted: there all tokens of the only window looked at share a region, and the mask costs nothing.
    """
    return """
  three = Constant <value_int = 3> ()
  y_last = Sub (height, w)
  y_seam = Sub (height, s)
  x_last = Sub (width, w)
  x_seam = Sub (width, s)
  y_in_last = GreaterOrEqual (y_range, y_last)
  y_past_seam = GreaterOrEqual (y_range, y_seam)
  x_in_last = GreaterOrEqual (x_range, x_last)
  x_past_seam = GreaterOrEqual (x_range, x_seam)
  y_in_last_i = Cast <to = 7> (y_in_last)
  y_past_seam_i = Cast <to = 7> (y_past_seam)
  x_in_last_i = Cast <to = 7> (x_in_last)
  x_past_seam_i = Cast <to = 7> (x_past_seam)
  y_region = Add (y_in_last_i, y_past_seam_i)
  x_region = Add (x_in_last_i, x_past_seam_i)
  y_region_3 = Mul (y_region, three)
  y_region_w = Reshape (y_region_3, by_row_shape)
  x_region_w = Reshape (x_region, by_column_shape)
  region_grid = Add (y_region_w, x_region_w)
  region_shape = Concat <axis = 0> (rest_1d, tokens_1d)
  region_all = Reshape (region_grid, region_shape)
  windows = Mul (rows, columns)
  windows_less_1 = Sub (windows, one)
  shifted = Min (s, one)
  masked_more = Mul (shifted, windows_less_1)
  masked = Add (masked_more, one)
  masked_1d = Unsqueeze (masked, axis0)
  region = Slice (region_all, axis0, masked_1d, axis0)
  query_shape = Concat <axis = 0> (rest_1d, one_1d, tokens_1d, one_1d)
  key_shape = Concat <axis = 0> (rest_1d, one_1d, one_1d, tokens_1d)
  region_query = Reshape (region, query_shape)
  region_key = Reshape (region, key_shape)
  same = Equal (region_query, region_key)
  same_f = Cast <to = 1> (same)"""


def shift_mask() -> str:
    """``mask`` [m, 1, N, N] (float32): 0 where `same_region`, else -100."""
    return (
        same_region()
        + """
  one_f = Constant <value_float = 1.0> ()
  hundred_f = Constant <value_float = 100.0> ()
  differ_f = Sub (same_f, one_f)
  mask = Mul (differ_f, hundred_f)"""
    )


def heads_of_qkv() -> str:
    """``query`` (scaled by d^-0.5), ``key`` and ``value`` [B, nW, heads, N, d] of ``qkv`` [B, H, W, 3C]; ``heads``."""
    return (
        sizes("qkv")
        + """
  heads = Constant <value_int : int = @num_heads> ()
  parts = Constant <value_int = 3> ()
  heads_1d = Unsqueeze (heads, axis0)
  heads_3 = Mul (heads, parts)
  head_width = Div (channels, heads_3)
  head_width_1d = Unsqueeze (head_width, axis0)"""
        + window_index("heads_3")
        + """
  head_range = Range (zero, heads, one)
  head_shape = Constant <value_ints = [1, 1, -1, 1, 1]> ()
  head_units = Reshape (head_range, head_shape)
  row_and_head = Add (window_rows, head_units)
  query_index = Add (row_and_head, window_columns)
  key_columns = Add (window_columns, heads)
  key_index = Add (row_and_head, key_columns)
  value_columns = Add (key_columns, heads)
  value_index = Add (row_and_head, value_columns)
  qkv_rows_shape = Concat <axis = 0> (batch_1d, rest_1d, head_width_1d)
  qkv_rows = Reshape (qkv, qkv_rows_shape)
  query_rows = Gather <axis = 1> (qkv_rows, query_index)
  key_rows = Gather <axis = 1> (qkv_rows, key_index)
  value_rows = Gather <axis = 1> (qkv_rows, value_index)
  heads_shape = Concat <axis = 0> (batch_1d, rest_1d, heads_1d, tokens_1d, head_width_1d)
  query_raw = Reshape (query_rows, heads_shape)
  key = Reshape (key_rows, heads_shape)
  value = Reshape (value_rows, heads_shape)
  head_width_f = Cast <to = 1> (head_width)
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
  attended = MatMul (probability, value)"""
        + to_image("attended", "heads", "y")
    )


def position_bias() -> str:
    """``bias`` [heads, N, N] (float32) from ``bias_table``; folds to a constant."""
    return """
  column_shape = Constant <value_ints = [-1, 1]> ()
  token = Range (zero, tokens, one)
  token_row = Div (token, w)
  token_column = Mod (token, w)
  query_row = Reshape (token_row, column_shape)
  query_column = Reshape (token_column, column_shape)
  row_offset = Sub (query_row, token_row)
  column_offset = Sub (query_column, token_column)
  w_less_1 = Sub (w, one)
  span = Add (w, w_less_1)
  row_index = Add (row_offset, w_less_1)
  column_index = Add (column_offset, w_less_1)
  row_entry = Mul (row_index, span)
  entry = Add (row_entry, column_index)
  bias_by_token = Gather <axis = 0> (bias_table, entry)
  bias_t = Transpose <perm = [2, 0, 1]> (bias_by_token)
  bias = Cast <to = 1> (bias_t)"""


def to_image(windows: str, units: str, output: str) -> str:
    """Puts windows [n, units, N, d] back: ``output`` [B, H, W, units*d]. Needs `sizes`; `units` is a scalar name."""
    return f"""
  y_unshift = Sub (height, s)
  x_unshift = Sub (width, s)
  y_moved = Add (y_range, y_unshift)
  x_moved = Add (x_range, x_unshift)
  y_rolled = Mod (y_moved, height)
  x_rolled = Mod (x_moved, width)
  y_window = Div (y_rolled, w)
  x_window = Div (x_rolled, w)
  y_inside = Mod (y_rolled, w)
  x_inside = Mod (x_rolled, w)
  window_units = Mul ({units}, tokens)
  row_of_windows = Mul (window_units, columns)
  y_to_window = Mul (y_window, row_of_windows)
  y_to_token = Mul (y_inside, w)
  y_place = Add (y_to_window, y_to_token)
  x_to_window = Mul (x_window, window_units)
  x_place = Add (x_to_window, x_inside)
  unit_range = Range (zero, {units}, one)
  unit_place = Mul (unit_range, tokens)
  y_shape = Constant <value_ints = [-1, 1, 1]> ()
  x_shape = Constant <value_ints = [-1, 1]> ()
  y_part = Reshape (y_place, y_shape)
  x_part = Reshape (x_place, x_shape)
  x_and_unit = Add (x_part, unit_place)
  place = Add (y_part, x_and_unit)
  result_shape = Shape ({windows})
  result_width = Gather <axis = 0> (result_shape, rest_1d)
  result_rows_shape = Concat <axis = 0> (batch_1d, rest_1d, result_width)
  result_rows = Reshape ({windows}, result_rows_shape)
  result_gathered = Gather <axis = 1> (result_rows, place)
  result_image_shape = Concat <axis = 0> (batch_1d, height_1d, width_1d, rest_1d)
  {output} = Reshape (result_gathered, result_image_shape)"""
