"""Every window less its mean: the smallest operator."""

import math
from collections.abc import Mapping, Sequence

from ..calls import Call
from ..cost import Cost
from ..registry import Operator
from .onnx_function import body

__all__ = ["OPERATOR"]

NAME = "window_centre"


def _cost(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], item_bytes: int) -> Cost:
    numbers = math.prod(shapes[0])
    return Cost(bytes_read=item_bytes * numbers, bytes_written=item_bytes * numbers, flops=2 * numbers)


def _shapes(image: tuple[int, int, int], channels: int, attributes: Mapping[str, int]) -> list[tuple[int, ...]]:
    return [(*image, channels)]


OPERATOR = Operator(
    name="WindowCentre",
    torch_name=NAME,
    inputs=("x",),
    attributes=("window_size",),
    output="y",
    body=body,
    doc="Takes the mean of every window off its pixels.",
    cost=_cost,
    calls=(Call("Centred", NAME, {"window_size": 4}, 8, _shapes),),
)
