"""Window arithmetic shared by the operators: shift, partition, regions, position bias, recomputation.

Notation of all operators: images are channels-last ``[B, H, W, C]``; ``w`` is window_size, ``s`` shift_size with
``0 <= s < w``, ``N = w*w`` tokens a window (row-major), ``n = B*(H/w)*(W/w)`` windows (batch outermost, then window
rows, then window columns).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

__all__ = [
    "MASK_VALUE",
    "PassMasks",
    "attend",
    "attend_without_logits",
    "compute_dtype",
    "from_windows",
    "position_bias",
    "recompute_gradients",
    "relative_position_index",
    "shift_mask",
    "to_windows",
    "token_regions",
    "window_slices",
]

MASK_VALUE = -100.0
"""Added to the logit of two tokens whose regions differ (Swin Transformer, arXiv 2103.14030, section 3.2)."""

LOGITS_BUDGET, ON_CPU = 128 * 2**20, 8 * 2**20
"""Bytes of logits that one pass over windows may hold, on a GPU and on a CPU; larger images are processed in several
passes. A CPU with nothing else to do loses no time by many; a GPU starts every kernel again for each."""


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The type of logits, softmax and accumulation: float32 for half types, else the tensor's own."""
    return torch.promote_types(tensor.dtype, torch.float32)


def to_windows(image: Tensor, window_size: int, shift_size: int) -> Tensor:
    """Rolls an image ``[B, H, W, C]`` by ``-s`` and cuts it into windows ``[n, N, C]``."""
    if shift_size:
        image = torch.roll(image, (-shift_size, -shift_size), (1, 2))
    batch, height, width, channels = image.shape
    rows, columns = height // window_size, width // window_size
    grid = image.reshape(batch, rows, window_size, columns, window_size, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, window_size * window_size, channels)


def from_windows(windows: Tensor, height: int, width: int, window_size: int, shift_size: int) -> Tensor:
    """Inverse of `to_windows`: ``[n, N, C]`` to ``[B, H, W, C]``."""
    rows, columns = height // window_size, width // window_size
    channels = windows.shape[-1]
    grid = windows.reshape(-1, rows, columns, window_size, window_size, channels)
    image = grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)
    return torch.roll(image, (shift_size, shift_size), (1, 2)) if shift_size else image


def token_regions(height: int, width: int, window_size: int, shift_size: int, device: torch.device) -> Tensor:
    """Region of every token of the rolled image, ``[nW, N]`` int64 in 0..8: ``3*row + column``.

    A rolled row ``r`` has region ``[r >= H-w] + [r >= H-s]``; columns likewise. Only tokens of one region see
    each other without the mask.
    """

    def along(size: int) -> Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - window_size).long() + (position >= size - shift_size).long()

    regions = 3 * along(height)[:, None] + along(width)[None, :]
    return to_windows(regions[None, :, :, None], window_size, 0)[..., 0]


def shift_mask(height: int, width: int, window_size: int, shift_size: int, like: Tensor) -> Tensor | None:
    """Additive mask ``[nW, N, N]`` of 0 and -100 in the type of `like`, or None when nothing is shifted."""
    if not shift_size:
        return None
    regions = token_regions(height, width, window_size, shift_size, like.device)
    return _region_mask(regions, like.dtype)


def _region_mask(regions: Tensor, dtype: torch.dtype) -> Tensor:
    return (regions[:, :, None] != regions[:, None, :]).to(dtype) * MASK_VALUE


class PassMasks:
    """`shift_mask` for a few windows of a batch at a time; the masks of all windows never exist together.

    Args:
        image: ``[B, H, W, ...]``.
        window_size: w.
        shift_size: s.
    """

    def __init__(self, image: Tensor, window_size: int, shift_size: int) -> None:
        self.regions: Tensor | None = None
        self.dtype = compute_dtype(image)
        if shift_size:
            self.regions = token_regions(image.shape[1], image.shape[2], window_size, shift_size, image.device)

    def regions_of(self, part: slice) -> Tensor | None:
        """Regions ``[n, N]`` of the windows `part`, whose index runs fastest within the batch; None without a shift."""
        if self.regions is None:
            return None
        index = torch.arange(part.start, part.stop, device=self.regions.device) % len(self.regions)
        return self.regions[index]

    def __call__(self, part: slice) -> Tensor | None:
        """Additive mask ``[n, N, N]`` of the windows `part`; None without a shift."""
        regions = self.regions_of(part)
        return None if regions is None else _region_mask(regions, self.dtype)


def relative_position_index(window_size: int, device: torch.device | None = None) -> Tensor:
    """Row of the bias table for query n and key m, ``[N, N]`` int64: ``(dr + w-1)*(2w-1) + dc + w-1``."""
    token = torch.arange(window_size * window_size, device=device)
    row, column = token // window_size, token % window_size
    rows = row[:, None] - row[None, :] + window_size - 1
    columns = column[:, None] - column[None, :] + window_size - 1
    return rows * (2 * window_size - 1) + columns


def position_bias(table: Tensor, window_size: int) -> Tensor:
    """Expands a bias table ``[(2w-1)^2, heads]`` to ``[heads, N, N]``."""
    index = relative_position_index(window_size, table.device)
    tokens = window_size * window_size
    return table[index.reshape(-1)].reshape(tokens, tokens, -1).permute(2, 0, 1)


def attend(query: Tensor, key: Tensor, value: Tensor, addend: Tensor, scale: float) -> Tensor:
    """``softmax(scale * q k^T + addend) v`` over the last two dimensions; `addend` broadcasts to the logits."""
    logits = (query * scale) @ key.transpose(-2, -1) + addend
    return torch.softmax(logits, -1) @ value


def attend_without_logits(query: Tensor, key: Tensor, value: Tensor, addend: Tensor, scale: float) -> Tensor:
    """`attend` for inference over ``[n, heads, N, d]``: torch's fused attention, which never holds the logits whole.

    Queries, keys and values of different widths are padded with zeros to the widest, which changes nothing.
    """
    width = value.shape[-1]
    widest = max(query.shape[-1], width)
    query, key, value = (pad(tensor, (0, widest - tensor.shape[-1])) for tensor in (query, key, value))
    logits_shape = (*query.shape[:-1], key.shape[-2])
    output = scaled_dot_product_attention(query, key, value, addend.expand(logits_shape), scale=scale)
    return output[..., :width]


def window_slices(windows: Tensor, rows: int, itemsize: int) -> Iterator[slice]:
    """Slices of the first axis of windows ``[n, N, ...]`` whose logits stay within the budget.

    Args:
        windows: The windows.
        rows: How many logits of N x N a window has at once.
        itemsize: Bytes of a logit.
    """
    count, tokens = windows.shape[:2]
    budget = ON_CPU if windows.device.type == "cpu" else LOGITS_BUDGET
    step = max(1, budget // (rows * tokens * tokens * itemsize))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def recompute_gradients(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of `function` at `inputs`, recomputed here so that the forward pass saves nothing of it."""
    leaves = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    with torch.enable_grad():
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, gradient)
