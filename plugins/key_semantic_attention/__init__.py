"""Key-semantic attention (SemanIR)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..calls import Call, shifted_window
from ..cost import INDEX_BYTES, Cost, attention_cost
from ..packing import words
from ..registry import Operator
from .onnx_function import body

__all__ = ["NAME", "OPERATOR"]

NAME = "key_semantic_attention"


def _cost(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], item_bytes: int) -> Cost:
    """As dense attention: the kernel multiplies whole tiles, of which the dictionary masks a part."""
    dense = attention_cost(shapes, attributes, item_bytes)
    return replace(dense, bytes_read=dense.bytes_read + INDEX_BYTES * math.prod(shapes[1]))


def _shapes(image: tuple[int, int, int], channels: int, attributes: Mapping[str, int]) -> list[tuple[int, ...]]:
    window, (batch, height, width) = attributes["window_size"], image
    tokens = window * window
    windows = batch * (height // window) * (width // window)
    table = ((2 * window - 1) ** 2, attributes["num_heads"])
    return [(*image, 3 * channels), (windows, tokens, words(tokens)), table]


def _call(label: str, channels: int, heads: int, window: int) -> Call:
    return Call(label, NAME, shifted_window(window, num_heads=heads), channels, _shapes, integer_inputs=(1,))


OPERATOR = Operator(
    name="KeySemanticAttention",
    torch_name=NAME,
    inputs=("qkv", "dictionary", "bias_table"),
    attributes=("window_size", "shift_size", "num_heads"),
    output="y",
    integer_tensors=("dictionary",),
    body=body,
    doc="Window attention in which every token attends to its key-semantic dictionary only.",
    cost=_cost,
    calls=(
        _call("SemanIR", 180, 6, 32),
        _call("SemanIR restoration", 112, 4, 16),
        _call("SemanIR tiny", 48, 1, 16),
        _call("SemanIR tiny denoising", 32, 1, 8),
    ),
    values_of="qkv",
)
