"""Group shifted window attention (AgileIR)."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from ..calls import Call, shifted_window
from ..cost import Cost
from ..registry import Operator
from .onnx_function import body, statics

__all__ = ["NAME", "OPERATOR"]

NAME = "group_shifted_window_attention"


def _cost(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], item_bytes: int) -> Cost:
    image, projection, _, depthwise = shapes[:4]
    pixels, tokens = math.prod(image[:3]), attributes["window_size"] ** 2
    groups, rows, width = projection
    key_width, taps = depthwise[1], depthwise[2] * depthwise[3]
    each = 2 * (rows * width + key_width * taps + tokens * key_width + tokens * width)
    return Cost(
        bytes_read=item_bytes * sum(math.prod(shape) for shape in shapes),
        bytes_written=item_bytes * math.prod(image),
        flops=pixels * groups * each,
        exponentials=pixels * groups * tokens,
    )


def _shapes(
    image: tuple[int, int, int], channels: int, attributes: Mapping[str, int], *, groups: int, key: int
) -> list[tuple[int, ...]]:
    value = channels // groups
    rows = 2 * key + value
    return [
        (*image, channels),
        (groups, rows, value),
        (groups, rows),
        (groups, key, 5, 5),
        (groups, key),
        ((2 * attributes["window_size"] - 1) ** 2, groups),
    ]


def _call(label: str, channels: int, groups: int, key: int, window: int) -> Call:
    return Call(label, NAME, shifted_window(window), channels, partial(_shapes, groups=groups, key=key))


OPERATOR = Operator(
    name="GroupShiftedWindowAttention",
    torch_name=NAME,
    inputs=("x", "qkv_weight", "qkv_bias", "q_dw_weight", "q_dw_bias", "bias_table"),
    attributes=("window_size", "shift_size"),
    output="y",
    body=body,
    statics=statics,
    doc="Cascaded group attention in shifted windows of an unshifted image (AgileIR).",
    cost=_cost,
    calls=(
        _call("AgileIR", 180, 6, 16, 16),
        _call("AgileIR light", 96, 12, 32, 16),
        _call("AgileIR lightest", 60, 6, 16, 8),
        _call("AgileIR tiny", 48, 3, 16, 8),
    ),
)
