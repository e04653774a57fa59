"""The reference of WindowCentre in NumPy."""

import numpy as np

from ..reference import Array, cut, paste

__all__ = ["reference"]


def reference(x: Array, window_size: int) -> Array:
    """``[B, H, W, C]`` to the same: the mean of every window is taken off its pixels."""
    windows = cut(x.astype(np.float64), window_size, 0)
    return paste(windows - windows.mean(1, keepdims=True), x.shape, window_size, 0).astype(x.dtype)
