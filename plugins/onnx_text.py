"""Statements in ONNX text that the function bodies share.

A body cuts windows with one Gather whose index does roll, partition and head split at once, and puts results back
with one Gather more: rows of d numbers are copied whole, nothing is transposed, and a shift costs nothing. Index
arithmetic runs on vectors as long as a side of the image. What depends on attributes and weights alone folds to
constants when the runtime loads the model. Index arithmetic begins with the shape of a node's own image: of several
nodes, it is computed once where that is known to be the same (`export.merging`).

TensorRT takes every node apart into layers, for each call of a function anew, before it merges them, and a build takes
its time for that. So

* the window size is written into the body, and what follows from it alone are constants;
* operands of one operation have one rank (else a layer reshapes): sizes are vectors of one number;
* all numbers are >= 0 and `Mod <fmod = 1>` is the remainder: with fmod = 0, ten layers care for the sign;
* Slice and Expand, of 12 to 28 layers each, do not occur where a Reshape, a Gather or an addition does.

Names that chunks leave behind for later ones are listed in each docstring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "attend",
    "heads_of_qkv",
    "integers",
    "position_bias",
    "restore_order",
    "same_region",
    "shift_mask",
    "sizes",
    "window_index",
    "windows_of_x",
]


def integers(name: str, values: Iterable[int], shape: Sequence[int] | None = None) -> str:
    """A constant of integers: a vector, or of `shape`."""
    values = list(values)
    dimensions = [len(values)] if shape is None else shape
    return f"""
  {name} = Constant <value = int64[{", ".join(map(str, dimensions))}] {{{", ".join(map(str, values))}}}> ()"""


def sizes(image: str, window: int) -> str:
    """Sizes ``batch, height, width, channels, w, s, tokens`` [1], ``y_range`` [H], ``x_range`` [W] and constants."""
    return (
        integers("one_1d", [1])
        + integers("rest_1d", [-1])
        + integers("w", [window])
        + integers("tokens", [window * window])
        + f"""
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  shift = Constant <value_int : int = @shift_size> ()
  s = Reshape (shift, one_1d)
  image_shape = Shape ({image})
  batch, height, width, channels = Split <axis = 0, num_outputs = 4> (image_shape)
  rows = Squeeze (height)
  columns = Squeeze (width)
  y_range = Range (zero, rows, one)
  x_range = Range (zero, columns, one)"""
    )


def window_index(window: int) -> str:
    """Row ``y_source`` [H] and column ``x_source`` [W] in the image of a rolled row or column.

    Leaves ``y_shape`` and ``x_shape`` too, that bring vectors over them into windows, [nH, 1, w, 1] and [1, nW, 1, w].
    """
    return (
        integers("y_shape", [-1, 1, window, 1])
        + integers("x_shape", [1, -1, 1, window])
        + """
  y_shifted = Add (y_range, s)
  x_shifted = Add (x_range, s)
  y_source = Mod <fmod = 1> (y_shifted, height)
  x_source = Mod <fmod = 1> (x_shifted, width)"""
    )


def _pixels(row_units: str, column_units: str) -> str:
    """``pixel`` [nH, nW, w, w], where a token's data begins: row times `row_units` [1] plus `column_units` [W]."""
    return f"""
  y_units = Mul (y_source, {row_units})
  y_start = Reshape (y_units, y_shape)
  x_start = Reshape ({column_units}, x_shape)
  pixel = Add (y_start, x_start)"""


def windows_of_x(output: str, window: int) -> str:
    """Windows of the image ``x``: `output` [B, nW, N, C]. Needs `sizes` and `window_index`."""
    return (
        _pixels("width", "x_source")
        + integers("token_shape", [-1, window * window])
        + f"""
  token_index = Reshape (pixel, token_shape)
  x_rows_shape = Concat <axis = 0> (batch, rest_1d, channels)
  x_rows = Reshape (x, x_rows_shape)
  {output} = Gather <axis = 1> (x_rows, token_index)"""
    )


def same_region(window: int) -> str:
    """Whether two tokens of a window lie in one shift region, ``same`` [m, 1, N, N] (bool). Needs `window_index`.

    Within a window, regions differ exactly where one token came round the border and the other did not: its row or
    column in the image is less than s. m is the number of windows of an image, or 1 where nothing is shifted: there
    all tokens are in region 0, the first window stands for all, and the mask costs nothing.
    """
    tokens = window * window
    return (
        integers("zero_1d", [0])
        + integers("straight_shape", [1, -1, 1, tokens])
        + integers("shifted_shape", [-1, 1, 1, tokens])
        + """
  y_wrapped = Less (y_source, s)
  x_wrapped = Less (x_source, s)
  y_part = Cast <to = 7> (y_wrapped)
  x_part = Cast <to = 7> (x_wrapped)
  y_part_2 = Add (y_part, y_part)
  y_region = Reshape (y_part_2, y_shape)
  x_region = Reshape (x_part, x_shape)
  region_grid = Add (y_region, x_region)
  is_shifted = Greater (s, zero_1d)
  region_shape = Where (is_shifted, shifted_shape, straight_shape)
  region_all = Reshape (region_grid, region_shape)
  region_key = Gather <axis = 1> (region_all, zero_1d)
  region_query = Transpose <perm = [0, 1, 3, 2]> (region_key)
  same = Equal (region_query, region_key)"""
    )


def shift_mask(window: int) -> str:
    """``mask`` [m, 1, N, N] (float32): 0 where `same_region`, else -100."""
    return (
        same_region(window)
        + """
  visible = Constant <value = float[1, 1, 1, 1] {0.0}> ()
  masked = Constant <value = float[1, 1, 1, 1] {-100.0}> ()
  mask = Where (same, visible, masked)"""
    )


def heads_of_qkv(window: int) -> str:
    """``query`` (scaled by d^-0.5), ``key`` and ``value`` [B, nW, heads, N, d] of ``qkv`` [B, H, W, 3C].

    Leaves ``heads`` and ``head_width`` [1] and ``head_range`` [heads] for `attend`.
    """
    return (
        sizes("qkv", window)
        + window_index(window)
        + integers("three", [3])
        + """
  num_heads = Constant <value_int : int = @num_heads> ()
  heads = Reshape (num_heads, one_1d)
  heads_3 = Mul (heads, three)
  head_width = Div (channels, heads_3)
  head_range = Range (zero, num_heads, one)
  row_units = Mul (width, heads_3)
  x_units = Mul (x_source, heads_3)"""
        + _pixels("row_units", "x_units")
        + integers("token_shape", [-1, 1, window * window])
        + integers("head_shape", [1, -1, 1])
        + """
  token_index = Reshape (pixel, token_shape)
  key_range = Add (head_range, heads)
  value_range = Add (key_range, heads)
  query_units = Reshape (head_range, head_shape)
  key_units = Reshape (key_range, head_shape)
  value_units = Reshape (value_range, head_shape)
  query_index = Add (token_index, query_units)
  key_index = Add (token_index, key_units)
  value_index = Add (token_index, value_units)
  qkv_rows_shape = Concat <axis = 0> (batch, rest_1d, head_width)
  qkv_rows = Reshape (qkv, qkv_rows_shape)
  query_raw = Gather <axis = 1> (qkv_rows, query_index)
  key = Gather <axis = 1> (qkv_rows, key_index)
  value = Gather <axis = 1> (qkv_rows, value_index)
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
  attended = MatMul (probability, value)
  rows_shape = Concat <axis = 0> (batch, rest_1d, head_width)
  attended_rows = Reshape (attended, rows_shape)"""
        + restore_order("heads")
        + integers("y_places", [-1, 1, 1])
        + integers("x_places", [1, -1, 1])
        + integers("head_places", [1, 1, -1])
        + """
  head_stride = Mul (head_range, tokens)
  y_column = Reshape (y_place, y_places)
  x_row = Reshape (x_place, x_places)
  head_place = Reshape (head_stride, head_places)
  pixel_place = Add (y_column, x_row)
  place = Add (pixel_place, head_place)
  gathered = Gather <axis = 1> (attended_rows, place)
  result_shape = Constant <value_ints = [0, 0, 0, -1]> ()
  y = Reshape (gathered, result_shape)"""
    )


def position_bias(window: int) -> str:
    """``bias`` [heads, N, N] (float32) from ``bias_table``.

    The table's row for query n and key m is ``place(n) - place(m) + place(N-1)`` with
    ``place(n) = (2w-1) * (n div w) + n mod w = (w-1) * (n div w) + n``. Numbered by Range: with constants
    in its place TensorRT's plans are larger (77 and not 73 MB for a SemanIR of 36 layers) and are built no faster.
    """
    tokens = window * window
    return (
        integers("row_step", [window - 1])
        + integers("last_place", [(2 * window - 1) * (window - 1) + window - 1])
        + integers("query_column_shape", [tokens, 1])
        + f"""
  token_count = Constant <value_int = {tokens}> ()
  token = Range (zero, token_count, one)
  token_row = Div (token, w)
  row_part = Mul (token_row, row_step)
  key_place = Add (row_part, token)
  query_place = Add (key_place, last_place)
  query_column = Reshape (query_place, query_column_shape)
  entry = Sub (query_column, key_place)
  table_f = Cast <to = 1> (bias_table)
  table_t = Transpose <perm = [1, 0]> (table_f)
  bias = Gather <axis = 1> (table_t, entry)"""
    )


def restore_order(units: str) -> str:
    """Where windows [nW, units, N] hold the image's pixels: the row of a pixel's first unit is the sum of two numbers.

    Leaves ``y_place`` [H] and ``x_place`` [W]. `units` is a name, [1]. A pixel in row r of the rolled image lies in
    row ``i = r - q * w`` of its window, ``q = r div w``, and ``q * w * W * units + i * w`` rows come before the pixels
    of row r; columns alike, with w and 1 for W and w.
    """
    return f"""
  y_unshift = Sub (height, s)
  x_unshift = Sub (width, s)
  y_moved = Add (y_range, y_unshift)
  x_moved = Add (x_range, x_unshift)
  y_rolled = Mod <fmod = 1> (y_moved, height)
  x_rolled = Mod <fmod = 1> (x_moved, width)
  y_quotient = Div (y_rolled, w)
  x_quotient = Div (x_rolled, w)
  window_units = Mul (w, {units})
  row_of_windows = Mul (width, window_units)
  y_step = Sub (row_of_windows, tokens)
  all_units = Mul (tokens, {units})
  x_step = Sub (all_units, w)
  y_far = Mul (y_quotient, y_step)
  x_far = Mul (x_quotient, x_step)
  y_near = Mul (y_rolled, w)
  y_place = Add (y_far, y_near)
  x_place = Add (x_far, x_rolled)"""
