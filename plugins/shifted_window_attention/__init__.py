"""Shifted window attention (SwinIR)."""

from collections.abc import Mapping

from ..calls import Call, shifted_window
from ..cost import attention_cost
from ..registry import Operator
from .onnx_function import body

__all__ = ["NAME", "OPERATOR"]

NAME = "shifted_window_attention"


def _shapes(image: tuple[int, int, int], channels: int, attributes: Mapping[str, int]) -> list[tuple[int, ...]]:
    return [(*image, 3 * channels), ((2 * attributes["window_size"] - 1) ** 2, attributes["num_heads"])]


def _call(label: str, channels: int, heads: int, window: int) -> Call:
    return Call(label, NAME, shifted_window(window, num_heads=heads), channels, _shapes)


OPERATOR = Operator(
    name="ShiftedWindowAttention",
    torch_name=NAME,
    inputs=("qkv", "bias_table"),
    attributes=("window_size", "shift_size", "num_heads"),
    output="y",
    body=body,
    doc="Window attention with cyclic shift and relative position bias on an unshifted image.",
    cost=attention_cost,
    calls=(
        _call("SwinIR", 180, 6, 8),
        _call("SwinIR large", 240, 8, 8),
        _call("SwinIR JPEG", 180, 6, 7),
        _call("SwinIR light", 60, 6, 8),
    ),
    values_of="qkv",
    in_half_block=True,
)
