"""What an operator must cost: bytes moved and arithmetic as functions of its shapes.

The least that any implementation can do that computes every product of the definition: every input is read once and
the output written once, a multiplication and an addition count as two operations. Dividing by a machine's bandwidth
and arithmetic rate gives the time below which no kernel can come; a measured time is read as a share of it. Every
operator's entry says its own (`Operator.cost`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["INDEX_BYTES", "Cost", "attention_cost"]

INDEX_BYTES = 4
"""Bytes of an int32 word of a dictionary."""

INTEGERS_A_SIMILARITY = 2
"""Integer operations that finding the largest takes for each similarity, whatever the way."""


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

    def least_seconds(
        self,
        bytes_per_second: float,
        flops_per_second: float,
        exponentials_per_second: float = math.inf,
        integers_per_second: float = math.inf,
    ) -> float:
        """Time that a machine needs at least, with all its units at their limits at the same time.

        Exponentials have a unit of their own, and a similarity takes two integer operations at least: it is compared,
        and counted.
        """
        return max(
            self.bytes_moved / bytes_per_second,
            self.flops / flops_per_second,
            self.exponentials / exponentials_per_second,
            INTEGERS_A_SIMILARITY * self.similarities / integers_per_second,
        )


def attention_cost(shapes: Sequence[Sequence[int]], attributes: Mapping[str, int], item_bytes: int) -> Cost:
    """Cost of dense window attention.

    Args:
        shapes: Shapes of qkv ``[B, H, W, 3C]``, possibly others, and bias_table ``[(2w-1)^2, heads]``.
        attributes: window_size and num_heads.
        item_bytes: Bytes of an element: 4 for float32, 2 for the half types.
    """
    qkv, table, tokens = shapes[0], shapes[-1], attributes["window_size"] ** 2
    pixels, channels = math.prod(qkv[:3]), qkv[3] // 3
    return Cost(
        bytes_read=item_bytes * (math.prod(qkv) + math.prod(table)),
        bytes_written=item_bytes * pixels * channels,
        flops=2 * 2 * pixels * tokens * channels,
        exponentials=pixels * tokens * attributes["num_heads"],
    )
