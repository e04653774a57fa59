"""Colour under full transparency: nobody sees it, and a network would."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["visible_colour"]


def visible_colour(pixels: npt.NDArray[np.float32], alpha: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """Pixels whose hidden colours, those at alpha 0, are replaced by that of a nearest visible pixel.

    What a file holds under alpha 0 is arbitrary (black, a key colour, noise), and a network carries it across the edge
    into what is seen. Nearest is meant in steps to one of the eight neighbours, sides before corners.

    Args:
        pixels: float32 [C, H, W].
        alpha: Opacity, float32 [1, H, W]; None where all is opaque.

    Returns:
        float32 [C, H, W]; `pixels` itself where nothing or everything is hidden.
    """
    if alpha is None:
        return pixels
    hidden = alpha[0] <= 0
    if not hidden.any() or hidden.all():
        return pixels
    height, width = hidden.shape
    stride = width + 2
    # Position of the pixel whose colour is taken, -1 where that is open; the border around belongs to nobody.
    origin = np.full((height + 2, stride), -2, np.int64)
    inside = origin[1:-1, 1:-1]
    inside[...] = np.where(hidden, -1, np.arange(height * width).reshape(height, width))
    flat = origin.reshape(-1)
    steps = (-1, 1, -stride, stride, -stride - 1, -stride + 1, stride - 1, stride + 1)
    # Only visible pixels that touch a hidden one spread at first.
    open_cells = np.flatnonzero(flat == -1)
    front = np.unique(np.concatenate([open_cells + step for step in steps]))
    front = front[flat[front] >= 0]
    while len(front):
        reached = []
        for step in steps:
            beside = front + step
            free = flat[beside] == -1
            flat[beside[free]] = flat[front[free]]
            reached.append(beside[free])
        front = np.concatenate(reached)
    filled = pixels.copy()
    filled[:, hidden] = pixels.reshape(len(pixels), -1)[:, inside[hidden]]
    return filled
