"""ONNX form of GroupShiftedWindowAttention."""

from __future__ import annotations

from collections.abc import Mapping

from ..onnx_text import integers, position_bias, restore_order, shift_mask, sizes, window_index, windows_of_x
from ..registry import Shapes

__all__ = ["body", "statics"]


def statics(shapes: Shapes, attributes: Mapping[str, int]) -> dict[str, int]:
    """Window size, number of groups, widths and depthwise filter size: the body is unrolled over groups."""
    groups, key_dim, kernel_height, kernel_width = shapes["q_dw_weight"]
    return {
        "window_size": attributes["window_size"],
        "groups": groups,
        "key_dim": key_dim,
        "value_dim": shapes["qkv_weight"][2],
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
    }


def _group(g: int, key_dim: int, kernel_height: int, kernel_width: int) -> str:
    """One group: ``output_g`` [B, nW, N, dv] from ``part_g`` and ``output_{g-1}``.

    The factor dk^-0.5 of the logits is in the depthwise filter. q and k are transposed together, because TensorRT then
    makes q's image, k^T and v in one kernel; the filtered q is transposed as an image, because that costs nothing where
    convolutions work channels-last.
    """
    below, beside = kernel_height // 2, kernel_width // 2
    shape = f"kernel_shape = [{kernel_height}, {kernel_width}], pads = [{below}, {beside}, {below}, {beside}]"
    fed = f"fed_{g} = Add (part_{g}, output_{g - 1})" if g else f"fed_{g} = Identity (part_{g})"
    return f"""
  {fed}
  group_{g} = Constant <value_int = {g}> ()
  weight_{g} = Gather <axis = 0> (weights, group_{g})
  offset_{g} = Gather <axis = 0> (qkv_bias, group_{g})
  projected_raw_{g} = MatMul (fed_{g}, weight_{g})
  projected_{g} = Add (projected_raw_{g}, offset_{g})
  query_and_key_{g}, value_{g} = Split <axis = 3> (projected_{g}, widths)
  by_channel_{g} = Transpose <perm = [0, 1, 3, 2]> (query_and_key_{g})
  query_raw_{g}, key_t_{g} = Split <axis = 2, num_outputs = 2> (by_channel_{g})
  query_image_{g} = Reshape (query_raw_{g}, query_image_shape)
  filter_{g} = Gather <axis = 0> (filters, group_{g})
  filter_offset_{g} = Gather <axis = 0> (filter_offsets, group_{g})
  filtered_{g} = Conv <group = {key_dim}, {shape}> (query_image_{g}, filter_{g}, filter_offset_{g})
  filtered_rows_{g} = Transpose <perm = [0, 2, 3, 1]> (filtered_{g})
  query_{g} = Reshape (filtered_rows_{g}, query_shape)
  similarity_t_{g} = MatMul (query_{g}, key_t_{g})
  similarity_{g} = Cast <to = 1> (similarity_t_{g})
  bias_{g} = Gather <axis = 0> (bias, group_{g})
  masked_bias_{g} = Add (bias_{g}, mask_windows)
  logits_{g} = Add (similarity_{g}, masked_bias_{g})
  probability_f_{g} = Softmax <axis = -1> (logits_{g})
  probability_{g} = CastLike (probability_f_{g}, x)
  output_{g} = MatMul (probability_{g}, value_{g})"""


def body(window_size: int, groups: int, key_dim: int, value_dim: int, kernel_height: int, kernel_width: int) -> str:
    """Statements of the function: y [B, H, W, C] from x [B, H, W, C] and the group weights.

    Args:
        window_size: w.
        groups: G.
        key_dim: dk.
        value_dim: dv = Cg.
        kernel_height: Rows of the depthwise filter, odd.
        kernel_width: Columns of the depthwise filter, odd.
    """
    parts = ", ".join(f"part_{g}" for g in range(groups))
    outputs = ", ".join(f"output_{g}" for g in range(groups))
    square, tokens = [window_size, window_size], window_size * window_size
    start = (
        integers("widths", [2 * key_dim, value_dim])
        + integers("query_image_shape", [-1, key_dim, *square])
        + integers("queries_shape", [-1, tokens, key_dim])
        + integers("filter_axis", [2])
        + f"""
  {parts} = Split <axis = 3, num_outputs = {groups}> (by_token)
  query_shape = Concat <axis = 0> (batch, queries_shape)
  weights = Transpose <perm = [0, 2, 1]> (qkv_weight)
  scale_f = Constant <value_float = {key_dim**-0.5!r}> ()
  scale = CastLike (scale_f, x)
  scaled_filters = Mul (q_dw_weight, scale)
  filters = Unsqueeze (scaled_filters, filter_axis)
  filter_offsets = Mul (q_dw_bias, scale)
  mask_windows = Squeeze (mask, one_1d)"""
    )
    end = f"""
  outputs = Concat <axis = 3> ({outputs})
  output_rows_shape = Concat <axis = 0> (batch, rest_1d, channels)
  output_rows = Reshape (outputs, output_rows_shape)
  y_column = Reshape (y_place, y_places)
  x_row = Reshape (x_place, x_places)
  place = Add (y_column, x_row)
  y = Gather <axis = 1> (output_rows, place)"""
    return (
        sizes("x", window_size)
        + window_index(window_size)
        + position_bias(window_size)
        + shift_mask(window_size)
        + windows_of_x("by_token", window_size)
        + start
        + "".join(_group(g, key_dim, kernel_height, kernel_width) for g in range(groups))
        + restore_order("one_1d")
        + integers("y_places", [-1, 1])
        + integers("x_places", [1, -1])
        + end
    )
