"""The operator calls of the presets: what kernels are compiled, costed and measured for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .packing import words

__all__ = ["CALLS", "Call"]


@dataclass(frozen=True)
class Call:
    """One operator as one preset calls it in every shifted layer.

    Attributes:
        label: The preset, in words.
        operator: Torch name of the operator.
        attributes: Its integer arguments by name.
        channels: Channels C of the image.
        group: For the group operator: groups, key width and filter size.
    """

    label: str
    operator: str
    attributes: Mapping[str, int]
    channels: int
    group: tuple[int, int, int] = (1, 1, 1)

    @property
    def integer_inputs(self) -> tuple[int, ...]:
        """Positions of int32 tensors among the inputs."""
        return (1,) if self.operator == "key_semantic_attention" else ()

    def shapes(self, batch: int, height: int, width: int) -> list[tuple[int, ...]]:
        """Shapes of the tensors for a batch of ``height x width`` images, multiples of the window."""
        window = self.attributes["window_size"]
        tokens = window * window
        image = (batch, height, width)
        windows = batch * (height // window) * (width // window)
        if self.operator == "key_semantic_dictionary":
            return [(*image, self.channels)]
        if self.operator == "group_shifted_window_attention":
            groups, key, filter_size = self.group
            value = self.channels // groups
            rows = 2 * key + value
            return [
                (*image, self.channels),
                (groups, rows, value),
                (groups, rows),
                (groups, key, filter_size, filter_size),
                (groups, key),
                ((2 * window - 1) ** 2, groups),
            ]
        table = ((2 * window - 1) ** 2, self.attributes["num_heads"])
        qkv = (*image, 3 * self.channels)
        if self.operator == "shifted_window_attention":
            return [qkv, table]
        return [qkv, (windows, tokens, words(tokens)), table]


def _group(label: str, channels: int, groups: int, key: int, window: int) -> Call:
    attributes = {"window_size": window, "shift_size": window // 2}
    return Call(label, "group_shifted_window_attention", attributes, channels, (groups, key, 5))


def _attention(label: str, channels: int, heads: int, window: int) -> Call:
    attributes = {"window_size": window, "shift_size": window // 2, "num_heads": heads}
    return Call(label, "shifted_window_attention", attributes, channels)


def _dictionary(label: str, channels: int, window: int, top_k: int) -> Call:
    attributes = {"window_size": window, "shift_size": window // 2, "top_k": top_k}
    return Call(label, "key_semantic_dictionary", attributes, channels)


def _key_attention(label: str, channels: int, heads: int, window: int) -> Call:
    attributes = {"window_size": window, "shift_size": window // 2, "num_heads": heads}
    return Call(label, "key_semantic_attention", attributes, channels)


CALLS = (
    _group("AgileIR", 180, 6, 16, 16),
    _group("AgileIR light", 96, 12, 32, 16),
    _group("AgileIR lightest", 60, 6, 16, 8),
    _group("AgileIR tiny", 48, 3, 16, 8),
    _attention("SwinIR", 180, 6, 8),
    _attention("SwinIR large", 240, 8, 8),
    _attention("SwinIR JPEG", 180, 6, 7),
    _attention("SwinIR light", 60, 6, 8),
    _dictionary("SemanIR", 180, 32, 512),
    _dictionary("SemanIR restoration", 112, 16, 128),
    _dictionary("SemanIR tiny", 48, 16, 64),
    _dictionary("SemanIR tiny denoising", 32, 8, 32),
    _key_attention("SemanIR", 180, 6, 32),
    _key_attention("SemanIR restoration", 112, 4, 16),
    _key_attention("SemanIR tiny", 48, 1, 16),
    _key_attention("SemanIR tiny denoising", 32, 1, 8),
)
"""One call for every operator of every preset that differs in shape; of U-shaped networks the finest level.

Layers without a shift differ in ``shift_size`` alone, and level l of a U-shaped network in ``2^l`` times the channels
and heads.
"""
