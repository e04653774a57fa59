"""SemanIR's attention: keys from the dictionary of the stage, position bias from an MLP; and k as a run-time choice."""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ...plugins.attention import plain_attention
from ...plugins.key_semantic_attention.operator import key_semantic_attention
from ...plugins.key_semantic_dictionary.operator import key_semantic_dictionary
from ...plugins.key_semantic_dictionary.operator import plain as plain_dictionary
from ..base import Restorer
from ..layers import Block, HeadedAttention, Stage

__all__ = ["KeySemanticAttention", "SemanticStage", "add_geometry", "set_top_k"]

LOG = logging.getLogger(__name__)

BIAS_HIDDEN = 512


def log_spaced_coordinates(window_size: int) -> Tensor:
    """Relative coordinates ``[(2w-1)^2, 2]`` in -1..1, ``sign(d) log2(1 + 8|d|/(w-1)) / 3`` (Swin V2, section 3.3)."""
    offsets = torch.arange(-(window_size - 1), window_size, dtype=torch.float32)
    spaced = offsets / max(window_size - 1, 1) * 8
    spaced = torch.sign(spaced) * torch.log2(spaced.abs() + 1) / 3
    return torch.stack(torch.meshgrid(spaced, spaced, indexing="ij"), -1).reshape(-1, 2)


class KeySemanticAttention(HeadedAttention):
    """Attention restricted to a stage's dictionary, with a position bias from an MLP."""

    def __init__(self, width: int, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__(width, num_heads, window_size, shift_size)
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, BIAS_HIDDEN), nn.ReLU(), nn.Linear(BIAS_HIDDEN, num_heads, bias=False)
        )
        coordinates = log_spaced_coordinates(window_size)
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.coordinates: Tensor

    def bias_table(self) -> Tensor:
        """Position bias ``[(2w-1)^2, heads]`` in 0..16."""
        if hasattr(self, "frozen_bias_table"):
            return self.get_buffer("frozen_bias_table")
        return 16 * torch.sigmoid(self.cpb_mlp(self.coordinates))

    def freeze(self) -> None:
        """Evaluates the position bias for good; the MLP is dropped."""
        if hasattr(self, "frozen_bias_table"):
            return
        self.register_buffer("frozen_bias_table", self.bias_table().detach().clone())
        del self.cpb_mlp, self.coordinates

    def attend(self, qkv: Tensor, *context: Tensor) -> Tensor:
        """See `HeadedAttention.attend`; the context is the stage's dictionary."""
        (dictionary,) = context
        table = self.bias_table().to(qkv.dtype)
        arguments = (self.window_size, self.shift_size, self.num_heads)
        if self.use_operator:
            output: Tensor = key_semantic_attention(qkv, dictionary, table, *arguments)
            return output
        return plain_attention(qkv, table, *arguments, selected=dictionary)


class SemanticStage(Stage):
    """A stage whose layers share the dictionary of the stage's input.

    Args:
        depth: Number of layers.
        width: Feature width C.
        num_heads: Heads of every layer.
        window_size: Attention window.
        shift_size: Cyclic shift of the whole stage.
        top_k: Keys per query.
        mlp_ratio: Hidden width of the MLP over C.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_heads: int,
        window_size: int,
        shift_size: int,
        top_k: int,
        mlp_ratio: float,
    ) -> None:
        blocks = [
            Block(width, KeySemanticAttention(width, num_heads, window_size, shift_size), mlp_ratio)
            for _ in range(depth)
        ]
        super().__init__(blocks, width)
        self.window_size, self.shift_size, self.top_k = window_size, shift_size, top_k
        self.use_operator = True

    def context(self, x: Tensor) -> tuple[Tensor, ...]:
        """The dictionary of ``[B, H, W, C]``."""
        features = layer_norm(x.detach(), (x.shape[-1],))
        build = key_semantic_dictionary if self.use_operator else plain_dictionary
        return (build(features, self.window_size, self.shift_size, self.top_k),)


def add_geometry(network: nn.Module, window_size: int, top_k: int) -> None:
    """Stores window and k in the state dict: no weight's shape depends on them, so they could not be inferred."""
    network.register_buffer("geometry", torch.tensor([window_size, top_k]))


def set_top_k(network: nn.Module, top_k: int) -> None:
    """Changes the number of keys per query of every stage in place.

    Raises:
        ValueError: `top_k` is below 1, or the network has no dictionary.
    """
    stages = [module for module in network.modules() if isinstance(module, SemanticStage)]
    if not isinstance(network, Restorer) or not stages:
        raise ValueError("top_k applies to SemanIR networks only")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_k > (tokens := int(network.get_buffer("geometry")[0]) ** 2):
        LOG.info(f"top_k {top_k} is all {tokens} keys that a window has: attention is dense.")
    for stage in stages:
        stage.top_k = top_k
    geometry = network.get_buffer("geometry")
    geometry[1] = top_k
    network.spec = dataclasses.replace(network.spec, top_k=top_k)
