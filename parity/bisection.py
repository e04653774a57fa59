"""Finding where two computations part: the first block whose output misses a floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..engines.runner import Images

__all__ = ["AFTER", "block_psnr", "first_broken"]

AFTER = "after the last block"
"""What is named where every block holds the floor."""


def block_psnr(expected: Images, found: Images) -> float:
    """PSNR in dB of features, at the peak of the reference's own magnitude; -inf where a value is not finite."""
    difference = expected.astype(np.float64) - found
    error = float(np.mean(difference * difference))
    if not math.isfinite(error):
        return -math.inf
    peak = float(np.abs(expected).max()) or 1.0
    return 10 * math.log10(peak * peak / error) if error else math.inf


def first_broken(
    blocks: Sequence[str], expected: Callable[[str], Images], found: Callable[[str], Images], floor: float
) -> str:
    """The first block whose output misses the floor, by bisection.

    Blocks after a broken one are taken to be broken: what they compute starts from its output.

    Args:
        blocks: Names of the blocks, in the order they are computed.
        expected: Output of a block in the reference.
        found: Output of a block in the candidate, of the same shape.
        floor: Least `block_psnr` in dB.

    Returns:
        The name, or `AFTER`.
    """
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        if block_psnr(expected(blocks[middle]), found(blocks[middle])) >= floor:
            low = middle + 1
        else:
            high = middle
    return blocks[low] if low < len(blocks) else AFTER
