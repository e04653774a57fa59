"""The reference of KeySemanticDictionary in NumPy."""

from __future__ import annotations

import numpy as np

from ..reference import WORD_BITS, Array, cut, regions

__all__ = ["reference"]


def reference(x: Array, window_size: int, shift_size: int, top_k: int) -> Array:
    """The `top_k` most similar tokens of every token's window, as sets of bits (SemanIR, arXiv 2405.20008).

    Tokens of the same region come first, then larger dot products, then lower indices.

    Args:
        x: ``[B, H, W, C]``, H and W multiples of the window.
        window_size: Side of a window; N is its square.
        shift_size: 0 <= shift < window.
        top_k: Tokens to choose; all where it exceeds N.

    Returns:
        int32 ``[B*windows, N, ceil(N/16)]``; bit ``m % 16`` of word ``m // 16`` of row n: n attends to m.

    Raises:
        ValueError: The image is not made of whole windows, or the shift does not fit.
    """
    by_window = regions(x.shape, window_size, shift_size)
    rows = []
    for number, window in enumerate(cut(x.astype(np.float64), window_size, shift_size)):
        region = by_window[number % len(by_window)]
        order = np.lexsort((-(window @ window.T), region[:, None] != region), axis=-1)  # stable: ties by index
        chosen = np.zeros((len(window), -(-len(window) // WORD_BITS) * WORD_BITS), bool)
        np.put_along_axis(chosen, order[:, :top_k], True, axis=1)
        words = chosen.reshape(len(window), -1, WORD_BITS) @ (1 << np.arange(WORD_BITS))
        rows.append(words.astype(np.int32))
    return np.stack(rows)
