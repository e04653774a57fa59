"""Packed sets of tokens: the form of a key-semantic dictionary, 16 members an int32 word."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WORD_BITS", "pack", "unpack", "words"]

WORD_BITS = 16
"""Bits used of every int32 word, so that plain integer arithmetic never meets the sign bit."""


def words(tokens: int) -> int:
    """Number of int32 words that hold a set over `tokens` tokens."""
    return -(-tokens // WORD_BITS)


def pack(selected: Tensor) -> Tensor:
    """Packs a boolean ``[..., N]`` into int32 words ``[..., ceil(N/16)]``: bit ``m % 16`` of word ``m // 16``."""
    import torch
    from torch.nn.functional import pad

    count = words(selected.shape[-1])
    padded = pad(selected.int(), (0, count * WORD_BITS - selected.shape[-1]))
    powers = 2 ** torch.arange(WORD_BITS, dtype=torch.int32, device=selected.device)
    packed: Tensor = (padded.unflatten(-1, (count, WORD_BITS)) * powers).sum(-1, dtype=torch.int32)
    return packed


def unpack(dictionary: Tensor, tokens: int) -> Tensor:
    """Inverse of `pack`: int32 words to a boolean ``[..., tokens]``."""
    import torch

    bits = torch.arange(WORD_BITS, dtype=torch.int32, device=dictionary.device)
    return ((dictionary[..., None] >> bits) & 1).flatten(-2)[..., :tokens].bool()
