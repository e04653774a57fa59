"""Position biases in row form: a table expanded along the columns only, as the kernels read it 16 bytes at a time.

The row form holds, for every head, row distance and column of the query, the biases of a whole row of keys, multiplied
by ``sqrt(d)`` so that it can be what the products of queries and keys are added to before their scaling. It takes
``(2w-1) w^2`` numbers a head: between the table's ``(2w-1)^2`` and the ``w^4`` of all pairs. It is made once for a
model: for PyTorch's operators when a table is met first, for an engine before it is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

__all__ = ["bias_rows", "rows_shape"]

Array = TypeVar("Array", "Tensor", "npt.NDArray[np.float32]")


def rows_shape(table: Sequence[int], window_size: int) -> tuple[int, ...]:
    """Shape of the row form ``[heads, 2w-1, w, w]`` of a table ``[(2w-1)^2, heads]``."""
    return table[-1], 2 * window_size - 1, window_size, window_size


def bias_rows(table: Array, window_size: int, key_width: int) -> Array:
    """The row form of a table of position biases.

    Args:
        table: float32 ``[(2w-1)^2, heads]``, of PyTorch or NumPy; row ``(dr + w-1) * (2w-1) + dc + w-1`` for a query
            ``dr`` rows below and ``dc`` columns right of a key.
        window_size: w.
        key_width: d, the width of a key.

    Returns:
        float32 ``[heads, 2w-1, w, w]``: at ``[h, dr + w-1, c, k]`` the bias of head h for a query in column c and a key
        in column k, times ``sqrt(d)``.
    """
    column = np.arange(window_size)
    distance = column[:, None] - column[None, :] + window_size - 1
    side = 2 * window_size - 1
    square = table.T.reshape(table.shape[1], side, side)
    return square[:, :, distance] * math.sqrt(key_width)
