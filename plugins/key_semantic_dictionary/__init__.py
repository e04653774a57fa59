"""Key-semantic dictionary (SemanIR)."""

import math
from collections.abc import Mapping, Sequence

from ..calls import Call, shifted_window
from ..cost import INDEX_BYTES, Cost
from ..packing import words
from ..registry import Operator
from .onnx_function import body, statics

__all__ = ["NAME", "OPERATOR"]

NAME = "key_semantic_dictionary"


def _cost(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], item_bytes: int) -> Cost:
    (image,) = shapes
    pixels, tokens = math.prod(image[:3]), attributes["window_size"] ** 2
    return Cost(
        bytes_read=item_bytes * math.prod(image),
        bytes_written=INDEX_BYTES * pixels * words(tokens),
        flops=2 * pixels * tokens * image[3],
        similarities=pixels * tokens,
    )


def _shapes(image: tuple[int, int, int], channels: int, attributes: Mapping[str, int]) -> list[tuple[int, ...]]:
    del attributes
    return [(*image, channels)]


def _call(label: str, channels: int, window: int, top_k: int) -> Call:
    return Call(label, NAME, shifted_window(window, top_k=top_k), channels, _shapes)


OPERATOR = Operator(
    name="KeySemanticDictionary",
    torch_name=NAME,
    inputs=("x",),
    attributes=("window_size", "shift_size", "top_k"),
    output="dictionary",
    integer_tensors=("dictionary",),
    body=body,
    statics=statics,
    doc="The top_k most similar tokens of every token of a window, as a packed set.",
    cost=_cost,
    calls=(
        _call("SemanIR", 180, 32, 512),
        _call("SemanIR restoration", 112, 16, 128),
        _call("SemanIR tiny", 48, 16, 64),
        _call("SemanIR tiny denoising", 32, 8, 32),
    ),
    chooses_keys=True,
    float_reason="its similarities choose the keys of a whole stage, and half precision would exchange "
    "nearly equal ones",
)
