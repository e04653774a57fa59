"""``torch.ops.agileir.key_semantic_dictionary``: SemanIR's top-k of every token, once per stage, as a packed set."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_tensors, check_window
from ..dispatch import register_cuda
from ..packing import pack, words
from ..registry import DOMAIN
from ..windows import PassMasks, to_windows, token_regions, window_slices
from . import NAME, OPERATOR

__all__ = ["key_semantic_dictionary", "plain"]


def order_preserving_integer(similarity: Tensor) -> Tensor:
    """Maps float32 to int64 so that the order of numbers is kept, equal numbers (also -0 and 0) staying equal."""
    bits = (similarity + 0.0).view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()


def select_largest(key: Tensor, count: int) -> Tensor:
    """Marks exactly `count` largest entries of every row ``[..., N]``; ties go to the lower index."""
    threshold = key.topk(count, sorted=True).values[..., -1:]
    above = key > threshold
    tied = key == threshold
    missing = count - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= missing))


@torch.library.custom_op(f"{DOMAIN}::{NAME}", mutates_args=())
def key_semantic_dictionary(x: Tensor, window_size: int, shift_size: int, top_k: int) -> Tensor:
    """The `top_k` most similar tokens of every token of a window (SemanIR, arXiv 2405.20008, dictionary construction).

    Similarity is the dot product ``x_n . x_m`` accumulated in float32. Tokens of the same shift region come first,
    then those of other regions; ties go to the lower index. Not differentiable.

    Args:
        x: ``[B, H, W, C]``; H and W multiples of w; finite.
        window_size: w >= 1.
        shift_size: s in 0..w-1.
        top_k: k >= 1; ``K = min(k, N)`` tokens are kept.

    Returns:
        int32 ``[n, N, ceil(N/16)]``: bit ``m % 16`` of word ``m // 16`` of row n says that token n attends to m.

    Raises:
        ValueError: A shape, type or argument does not fit; the message holds the numbers.
    """
    _check(x, window_size, shift_size, top_k)
    windows = to_windows(x, window_size, shift_size)
    tokens = windows.shape[1]
    count = min(top_k, tokens)
    dictionary = x.new_empty(len(windows), tokens, words(tokens), dtype=torch.int32)
    shift_masks = PassMasks(x, window_size, shift_size)
    for part in window_slices(windows, 4, 8):
        features = windows[part].float()
        key = features @ features.transpose(1, 2)
        own = shift_masks.regions_of(part)
        if own is not None:
            same = own[:, :, None] == own[:, None, :]
            key = order_preserving_integer(key) + (same.long() << 33)
        dictionary[part] = pack(select_largest(key, count))
    return dictionary


def _check(x: Tensor, window_size: int, shift_size: int, top_k: int) -> None:
    check_window(NAME, x, window_size, shift_size)
    check_tensors(NAME, x=x)
    if top_k < 1:
        raise ValueError(f"{NAME}: top_k must be at least 1, got {top_k}")


@key_semantic_dictionary.register_fake
def _(x: Tensor, window_size: int, shift_size: int, top_k: int) -> Tensor:
    _check(x, window_size, shift_size, top_k)
    batch, height, width, _ = x.shape
    tokens = window_size * window_size
    windows = batch * (height // window_size) * (width // window_size)
    return x.new_empty(windows, tokens, words(tokens), dtype=torch.int32)


register_cuda(key_semantic_dictionary, OPERATOR)


def plain(x: Tensor, window_size: int, shift_size: int, top_k: int) -> Tensor:
    """The selection in ordinary exportable torch functions, as a boolean ``[B, nW, N, N]`` instead of packed bits.

    Tokens of other regions fill up by index, not by similarity: the attention suppresses them all the same.
    """
    batch, height, width, _ = x.shape
    features = to_windows(x, window_size, shift_size).float().unflatten(0, (batch, -1))
    similarity = features @ features.transpose(-2, -1)
    if shift_size:
        own = token_regions(height, width, window_size, shift_size, x.device)
        differ = own[:, :, None] != own[:, None, :]
        similarity = similarity.masked_fill(differ, float("-inf"))
    chosen = similarity.topk(min(top_k, window_size * window_size)).indices
    selected = torch.zeros_like(similarity, dtype=torch.bool)
    return selected.scatter(-1, chosen, torch.ones_like(chosen, dtype=torch.bool))
