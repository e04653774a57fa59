"""ONNX form of WindowCentre."""

from ..onnx_text import integers

__all__ = ["body"]


def body(window_size: int) -> str:
    """Statements of the function: y [B, H, W, C] from x [B, H, W, C]."""
    return (
        integers("w", [window_size])
        + integers("within", [2, 4])
        + """
  x_shape = Shape (x)
  batch, height, width, channels = Split <axis = 0, num_outputs = 4> (x_shape)
  rows = Div (height, w)
  columns = Div (width, w)
  grid_shape = Concat <axis = 0> (batch, rows, w, columns, w, channels)
  grid = Reshape (x, grid_shape)
  mean = ReduceMean <keepdims = 1> (grid, within)
  centred = Sub (grid, mean)
  y = Reshape (centred, x_shape)"""
    )
