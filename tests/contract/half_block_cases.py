"""Half blocks as networks have them: shapes of features and packed weights, and attributes. Used by programs, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from agileir_export.plugins import half_blocks
from agileir_export.plugins.half_block_plugins import (
    NORM,
    NORM_PROJECTION,
    TOKEN_TAIL,
    WINDOW_ATTENTION,
    HalfBlock,
    epsilon_bits,
)

CHANNELS, HIDDEN, WINDOW, HEADS = 60, 120, 8, 6
"""SwinIR light's."""

EPSILON = {"epsilon_bits": epsilon_bits(1e-5)}


@dataclass(frozen=True)
class Case:
    """A half block.

    Attributes:
        entry: Its entry.
        attributes: Of its node.
        weights: Shapes of its packed weights.
        features: Number of inputs that are features.
    """

    entry: HalfBlock
    attributes: Mapping[str, int]
    weights: tuple[tuple[int, ...], ...]
    features: int = 1

    def shapes(self, batch: int, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes of the inputs."""
        return [(batch, height, width, CHANNELS)] * self.features + list(self.weights)


def nothing(*sizes: int) -> torch.Tensor:
    return torch.empty(sizes, device="meta")


def linear(outputs: int, inputs: int = CHANNELS) -> tuple[torch.Tensor, None]:
    return nothing(outputs, inputs), None


def shapes_of(packed: tuple[torch.Tensor, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in packed)


VECTORS = nothing(CHANNELS), nothing(CHANNELS)
TABLE = nothing((2 * WINDOW - 1) ** 2, HEADS)

CASES = {
    case.entry.name: case
    for case in (
        Case(NORM, EPSILON, shapes_of(half_blocks.pack_norm(*VECTORS))),
        Case(
            NORM_PROJECTION,
            EPSILON | {"out_channels": 3 * CHANNELS},
            shapes_of(half_blocks.pack_norm_projection(*VECTORS, *linear(3 * CHANNELS))),
        ),
        Case(
            TOKEN_TAIL,
            EPSILON | {"projected": 1, "rectified": 1},
            shapes_of(
                half_blocks.pack_token_tail(linear(CHANNELS), *VECTORS, linear(HIDDEN), linear(CHANNELS, HIDDEN))
            ),
            features=2,
        ),
        Case(
            WINDOW_ATTENTION,
            EPSILON | {"window_size": WINDOW, "shift_size": WINDOW // 2, "num_heads": HEADS},
            shapes_of(
                half_blocks.pack_window_attention(*VECTORS, linear(3 * CHANNELS), linear(CHANNELS), TABLE, WINDOW)
            ),
        ),
    )
}
"""By name of the plugin."""
