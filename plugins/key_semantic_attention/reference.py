"""The reference of KeySemanticAttention in NumPy."""

from __future__ import annotations

from ..reference import Array, attention

__all__ = ["reference"]


def reference(
    qkv: Array, dictionary: Array, bias_table: Array, window_size: int, shift_size: int, num_heads: int
) -> Array:
    """Window attention in which a query sees the tokens of its dictionary row only (arXiv 2405.20008).

    See `attention` for the arguments, the result and what is refused.
    """
    return attention(qkv, bias_table, window_size, shift_size, num_heads, dictionary)
