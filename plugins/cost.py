"""What an operator must cost: bytes moved and arithmetic as functions of its shapes.

The least that any implementation can do that computes every product of the definition: every input is read once and
the output written once, a multiplication and an addition count as two operations. Dividing by a machine's bandwidth
and arithmetic rate gives the time below which no kernel can come; a measured time is read as a share of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .packing import words

__all__ = ["Cost", "cost"]

INDEX_BYTES = 4
"""Bytes of an int32 word of a dictionary."""


@dataclass(frozen=True)
class Cost:
    """Cost of one operator call.

    Attributes:
        bytes_read: Bytes of all inputs, each once.
        bytes_written: Bytes of the output.
        flops: Operations of the products: projections, filters, logits, weighted values, similarities.
        exponentials: Exponentials of the softmax.
        similarities: Similarities of which the largest are to be found.
    """

    bytes_read: int
    bytes_written: int
    flops: int
    exponentials: int = 0
    similarities: int = 0

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    def least_seconds(self, bytes_per_second: float, flops_per_second: float) -> float:
        """Time that a machine needs at least, moving and computing at its limits at the same time."""
        return max(self.bytes_moved / bytes_per_second, self.flops / flops_per_second)


def cost(torch_name: str, shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], item_bytes: int) -> Cost:
    """Cost of a call.

    Args:
        torch_name: Operator, such as ``"shifted_window_attention"``.
        shapes: Shapes of its tensors in order.
        attributes: Its integer arguments by name.
        item_bytes: Bytes of an element: 4 for float32, 2 for the half types.

    Raises:
        KeyError: There is no such operator.
    """
    tokens = attributes["window_size"] ** 2
    return _COSTS[torch_name](shapes, attributes, tokens, item_bytes)


def _attention(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], tokens: int, item_bytes: int) -> Cost:
    qkv, table = shapes[0], shapes[-1]
    pixels, channels = math.prod(qkv[:3]), qkv[3] // 3
    return Cost(
        bytes_read=item_bytes * (math.prod(qkv) + math.prod(table)),
        bytes_written=item_bytes * pixels * channels,
        flops=2 * 2 * pixels * tokens * channels,
        exponentials=pixels * tokens * attributes["num_heads"],
    )


def _key_attention(
    shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], tokens: int, item_bytes: int
) -> Cost:
    """As dense attention: the kernel multiplies whole tiles, of which the dictionary masks a part."""
    dense = _attention(shapes, attributes, tokens, item_bytes)
    return Cost(
        bytes_read=dense.bytes_read + INDEX_BYTES * math.prod(shapes[1]),
        bytes_written=dense.bytes_written,
        flops=dense.flops,
        exponentials=dense.exponentials,
    )


def _dictionary(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], tokens: int, item_bytes: int) -> Cost:
    del attributes
    (image,) = shapes
    pixels = math.prod(image[:3])
    return Cost(
        bytes_read=item_bytes * math.prod(image),
        bytes_written=INDEX_BYTES * pixels * words(tokens),
        flops=2 * pixels * tokens * image[3],
        similarities=pixels * tokens,
    )


def _group_attention(
    shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], tokens: int, item_bytes: int
) -> Cost:
    del attributes
    image, projection, _, depthwise = shapes[:4]
    pixels = math.prod(image[:3])
    groups, rows, width = projection
    key_width, taps = depthwise[1], depthwise[2] * depthwise[3]
    each = 2 * (rows * width + key_width * taps + tokens * key_width + tokens * width)
    return Cost(
        bytes_read=item_bytes * sum(math.prod(shape) for shape in shapes),
        bytes_written=item_bytes * math.prod(image),
        flops=pixels * groups * each,
        exponentials=pixels * groups * tokens,
    )


_COSTS = {
    "group_shifted_window_attention": _group_attention,
    "key_semantic_attention": _key_attention,
    "key_semantic_dictionary": _dictionary,
    "shifted_window_attention": _attention,
}
