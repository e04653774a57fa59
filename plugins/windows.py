"""Window arithmetic shared by the four operators: shift, partition, regions, position bias, recomputation.

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
    "attend",
    "attend_without_logits",
    "compute_dtype",
    "from_windows",
    "mask_slice",
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

LOGITS_BUDGET = 128 * 2**20
"""Bytes of logits that one pass over windows may hold; larger images are processed in several passes."""


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
    differ = regions[:, :, None] != regions[:, None, :]
    return differ.to(like.dtype) * MASK_VALUE


def mask_slice(mask: Tensor | None, part: slice) -> Tensor | None:
    """Rows of a mask ``[nW, N, N]`` for windows `part` of a batch, whose window index runs fastest."""
    if mask is None:
        return None
    index = torch.arange(part.start, part.stop, device=mask.device) % len(mask)
    return mask[index]


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


def window_slices(windows: int, rows: int, tokens: int, itemsize: int) -> Iterator[slice]:
    """Slices of the window axis whose logits (`rows` x `tokens` x `tokens` each) stay within LOGITS_BUDGET."""
    step = max(1, LOGITS_BUDGET // (rows * tokens * tokens * itemsize))
    for start in range(0, windows, step):
        yield slice(start, min(start + step, windows))


def recompute_gradients(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of `function` at `inputs`, recomputed here so that the forward pass saves nothing of it."""
    leaves = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    with torch.enable_grad():
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, gradient)
