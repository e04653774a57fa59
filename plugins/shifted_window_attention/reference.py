"""The reference of ShiftedWindowAttention in NumPy."""

from ..reference import attention as reference

__all__ = ["reference"]
