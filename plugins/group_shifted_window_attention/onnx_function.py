"""ONNX form of GroupShiftedWindowAttention."""

from __future__ import annotations

from ..onnx_text import position_bias, shift_mask, sizes, to_image, window_index, windows_of_x
from ..registry import Operator, Shapes, register

__all__ = ["OPERATOR"]


def statics(shapes: Shapes) -> dict[str, int]:
    """Number of groups, key width and depthwise filter size: the body is unrolled over groups."""
    groups, key_dim, kernel_height, kernel_width = shapes["q_dw_weight"]
    return {
        "groups": groups,
        "key_dim": key_dim,
        "value_dim": shapes["qkv_weight"][2],
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
    }


def _group(g: int, key_dim: int, value_dim: int, kernel_height: int, kernel_width: int) -> str:
    """One group in channel-major windows: ``output_g`` [B, nW, dv, N] from ``part_g`` and ``output_{g-1}``.

    The factor dk^-0.5 of the logits is folded into the depthwise filter.
    """
    below, beside = kernel_height // 2, kernel_width // 2
    shape = f"kernel_shape = [{kernel_height}, {kernel_width}], pads = [{below}, {beside}, {below}, {beside}]"
    fed = f"fed_{g} = Add (part_{g}, output_{g - 1})" if g else f"fed_{g} = Identity (part_{g})"
    return f"""
  {fed}
  group_{g} = Constant <value_int = {g}> ()
  weight_{g} = Gather <axis = 0> (qkv_weight, group_{g})
  offset_row_{g} = Gather <axis = 0> (qkv_bias, group_{g})
  offset_{g} = Unsqueeze (offset_row_{g}, last_axis)
  projected_raw_{g} = MatMul (weight_{g}, fed_{g})
  projected_{g} = Add (projected_raw_{g}, offset_{g})
  query_raw_{g}, key_{g}, value_{g} = Split <axis = 2> (projected_{g}, widths)
  query_image_{g} = Reshape (query_raw_{g}, query_image_shape)
  filter_raw_{g} = Gather <axis = 0> (q_dw_weight, group_{g})
  filter_scaled_{g} = Mul (filter_raw_{g}, scale)
  filter_{g} = Unsqueeze (filter_scaled_{g}, one_1d)
  filter_offset_raw_{g} = Gather <axis = 0> (q_dw_bias, group_{g})
  filter_offset_{g} = Mul (filter_offset_raw_{g}, scale)
  filtered_{g} = Conv <group = {key_dim}, {shape}> (query_image_{g}, filter_{g}, filter_offset_{g})
  query_{g} = Reshape (filtered_{g}, query_shape_windows)
  query_by_token_{g} = Transpose <perm = [0, 1, 3, 2]> (query_{g})
  similarity_t_{g} = MatMul (query_by_token_{g}, key_{g})
  similarity_{g} = Cast <to = 1> (similarity_t_{g})
  bias_{g} = Gather <axis = 0> (bias, group_{g})
  masked_bias_{g} = Add (bias_{g}, mask_windows)
  logits_{g} = Add (similarity_{g}, masked_bias_{g})
  probability_f_{g} = Softmax <axis = -1> (logits_{g})
  probability_{g} = CastLike (probability_f_{g}, x)
  probability_by_key_{g} = Transpose <perm = [0, 1, 3, 2]> (probability_{g})
  output_{g} = MatMul (value_{g}, probability_by_key_{g})"""


def body(groups: int, key_dim: int, value_dim: int, kernel_height: int, kernel_width: int) -> str:
    """Statements of the function: y [B, H, W, C] from x [B, H, W, C] and the group weights.

    Windows are channel-major, [B, nW, C, N], so that projection, filter and attention chain without a transpose.

    Args:
        groups: G.
        key_dim: dk.
        value_dim: dv = Cg.
        kernel_height: Rows of the depthwise filter, odd.
        kernel_width: Columns of the depthwise filter, odd.
    """
    parts = ", ".join(f"part_{g}" for g in range(groups))
    outputs = ", ".join(f"output_{g}" for g in range(groups))
    start = f"""
  last_axis = Constant <value_ints = [-1]> ()
  by_channel = Transpose <perm = [0, 1, 3, 2]> (by_token)
  {parts} = Split <axis = 2, num_outputs = {groups}> (by_channel)
  widths = Constant <value_ints = [{key_dim}, {key_dim}, {value_dim}]> ()
  key_dim_1d = Constant <value_ints = [{key_dim}]> ()
  query_image_shape = Concat <axis = 0> (rest_1d, key_dim_1d, w_1d, w_1d)
  query_shape_windows = Concat <axis = 0> (batch_1d, rest_1d, key_dim_1d, tokens_1d)
  scale_f = Constant <value_float = {key_dim**-0.5!r}> ()
  scale = CastLike (scale_f, x)
  mask_windows = Squeeze (mask, one_1d)"""
    sizes_of_group = (key_dim, value_dim, kernel_height, kernel_width)
    end = f"""
  outputs = Concat <axis = 2> ({outputs})
  outputs_by_token = Transpose <perm = [0, 1, 3, 2]> (outputs)"""
    return (
        sizes("x")
        + window_index("one")
        + position_bias()
        + shift_mask()
        + windows_of_x("by_token")
        + start
        + "".join(_group(g, *sizes_of_group) for g in range(groups))
        + end
        + to_image("outputs_by_token", "one", "y")
    )


OPERATOR = register(
    Operator(
        name="GroupShiftedWindowAttention",
        torch_name="group_shifted_window_attention",
        inputs=("x", "qkv_weight", "qkv_bias", "q_dw_weight", "q_dw_bias", "bias_table"),
        attributes=("window_size", "shift_size"),
        output="y",
        body=body,
        statics=statics,
        doc="Cascaded group attention in shifted windows of an unshifted image (AgileIR).",
    )
)
