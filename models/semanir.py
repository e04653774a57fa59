"""SemanIR (arXiv 2405.20008; earlier KGT, 2402.02634): one key-semantic dictionary per stage, shared by its layers.

No code or weights are public. The following is not stated in any public source and therefore our reading: pre-norm
blocks; similarity as the dot product of the stage input after a LayerNorm without parameters; the shift alternating
per stage, so that one dictionary serves the stage; keys of other shift regions ranked last; a position bias of
``16*sigmoid(MLP)`` over log-spaced coordinates (Swin V2, arXiv 2111.09883; GRL, arXiv 2303.00748). The published
parameter counts of the columnar networks are met to the printed digit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..errors import CheckpointError
from ..plugins import (
    key_semantic_attention,
    key_semantic_dictionary,
    plain_attention,
    plain_dictionary,
)
from .base import Restorer
from .columnar import ColumnarNetwork
from .inference import BLOCK, columnar_hyperparameters
from .layers import Block, Stage, check_heads, initialise
from .spec import ModelSpec

__all__ = ["KeySemanticAttention", "SemanIR", "SemanticStage", "detect", "infer", "set_top_k", "take_geometry"]

BIAS_HIDDEN = 512


def log_spaced_coordinates(window_size: int) -> Tensor:
    """Relative coordinates ``[(2w-1)^2, 2]`` in -1..1, ``sign(d) log2(1 + 8|d|/(w-1)) / 3`` (Swin V2, section 3.3)."""
    offsets = torch.arange(-(window_size - 1), window_size, dtype=torch.float32)
    spaced = offsets / max(window_size - 1, 1) * 8
    spaced = torch.sign(spaced) * torch.log2(spaced.abs() + 1) / 3
    return torch.stack(torch.meshgrid(spaced, spaced, indexing="ij"), -1).reshape(-1, 2)


class KeySemanticAttention(nn.Module):
    """Attention restricted to a stage's dictionary, with a position bias from an MLP.

    Args:
        width: Feature width C.
        num_heads: Heads; divides C.
        window_size: Attention window.
        shift_size: Cyclic shift, the same in all layers of a stage.
    """

    def __init__(self, width: int, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads, self.window_size, self.shift_size = num_heads, window_size, shift_size
        self.use_operator = True
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
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

    def forward(self, x: Tensor, dictionary: Tensor) -> Tensor:
        """``[B, H, W, C]`` and the stage's dictionary to ``[B, H, W, C]``."""
        qkv = self.qkv(x)
        table = self.bias_table().to(qkv.dtype)
        arguments = (self.window_size, self.shift_size, self.num_heads)
        if self.use_operator:
            y = key_semantic_attention(qkv, dictionary, table, *arguments)
        else:
            y = plain_attention(qkv, table, *arguments, selected=dictionary)
        output: Tensor = self.proj(y)
        return output


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


class SemanIR(ColumnarNetwork):
    """The columnar SemanIR network, for super-resolution.

    Args:
        name: Preset name or ``"custom"``.
        task: Task name of the spec.
        scale: Up-scaling factor.
        channels: Image channels.
        embed_dim: Feature width C.
        depths: Layers of each stage.
        num_heads: Heads of every layer.
        window_size: Attention window.
        top_k: Keys per query, >= 1; a run-time choice, see `set_top_k`.
        mlp_ratio: Hidden width of the MLP over C.
        upsampler: Reconstruction head, see `UpsampleHead`.
        resi_connection: ``"1conv"``.
        num_feat: Width of the head.
        img_range: Range of the network's inner values.
    """

    def __init__(
        self,
        *,
        name: str = "custom",
        task: str = "super-resolution",
        scale: int = 2,
        channels: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: int = 6,
        window_size: int = 32,
        top_k: int = 512,
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffle",
        resi_connection: str = "1conv",
        num_feat: int = 64,
        img_range: float = 1.0,
    ) -> None:
        spec = ModelSpec("semanir", name, task, scale, channels, window_size, window_size, img_range, top_k)
        stages = [
            SemanticStage(
                depth,
                embed_dim,
                num_heads,
                window_size,
                window_size // 2 if index % 2 else 0,
                top_k,
                mlp_ratio,
            )
            for index, depth in enumerate(depths)
        ]
        super().__init__(spec, stages, embed_dim, upsampler, resi_connection, num_feat)
        add_geometry(self, window_size, top_k)
        self.apply(initialise)


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
    for stage in stages:
        stage.top_k = top_k
    geometry = network.get_buffer("geometry")
    geometry[1] = top_k
    network.spec = dataclasses.replace(network.spec, top_k=top_k)


def take_geometry(network: Restorer, path: Path) -> None:
    """Checks the window that loaded weights are for against the network's, and takes over their k.

    Raises:
        CheckpointError: They do not fit; `path` is the checkpoint.
    """
    window_size, top_k = network.get_buffer("geometry").tolist()
    if window_size != network.spec.window_size:
        raise CheckpointError(
            f"{path}: geometry says window {window_size}, {network.spec.name} has {network.spec.window_size}.",
            fix="Choose the preset the checkpoint was trained as.",
        )
    try:
        set_top_k(network, top_k)
    except ValueError as error:
        raise CheckpointError(f"{path}: geometry does not fit: {error}.") from error


def detect(state: Mapping[str, Tensor]) -> bool:
    """True for the state dict of a columnar SemanIR."""
    return f"{BLOCK}.attn.cpb_mlp.0.weight" in state


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Hyper-parameters of a columnar SemanIR."""
    found = columnar_hyperparameters(state)
    found["num_heads"] = state[f"{BLOCK}.attn.cpb_mlp.2.weight"].shape[0]
    found["window_size"], found["top_k"] = (int(value) for value in state["geometry"])
    return found
