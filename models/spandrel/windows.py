"""Putting windows together again without counting pictures.

Swin's code finds the batch by ``B = int(windows.shape[0] / (H * W / w / w))``. The torch exporter takes the integer for
a constant: the graph then holds the batch it was traced with, and is silently wrong at every other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["free_the_batch"]


def window_reverse(windows: Tensor, window_size: Any, height: Any, width: int | None = None) -> Tensor:
    """Windows ``[B * H/h * W/w, h, w, C]`` to pictures ``[B, H, W, C]``.

    Args:
        windows: The windows.
        window_size: w or (h, w).
        height: H, or (H, W) as GRL gives them.
        width: W.
    """
    rows, columns = window_size if isinstance(window_size, tuple | list) else (window_size, window_size)
    height, width = height if width is None else (height, width)
    return joined(windows, rows, columns, height, width)


def joined(windows: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """Windows of `rows` by `columns` tokens, ``[..., C]``, to pictures ``[B, H, W, C]``."""
    channels = windows.shape[-1]
    cells = windows.reshape(-1, height // rows, width // columns, rows, columns, channels)
    return cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


REPLACEMENTS: dict[str, Callable[..., Tensor]] = {"window_reverse": window_reverse, "windows2img": joined}
"""By the name that spandrel's architectures give the function."""

DILATED = "Uformer"
"""Its `window_reverse` takes a rate of dilation, and its pictures are square."""


def free_the_batch(architecture: str) -> None:
    """Replaces the functions in the modules of an architecture, for this process: their results are the same.

    Args:
        architecture: Its id.
    """
    package = f"spandrel.architectures.{architecture}"
    if architecture == DILATED:
        return
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            for function, replacement in REPLACEMENTS.items():
                if hasattr(module, function):
                    setattr(module, function, replacement)
