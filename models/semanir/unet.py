"""The U-shaped SemanIR for restoration at the input's size.

The papers give the total of 25.82 M parameters and that skips use concatenation and addition; widths, depths and
window are our reading, and the presets come to 25.80 M.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..base import Restorer
from ..layers import convolve, initialise
from ..spec import ModelSpec
from .attention import SemanticStage, add_geometry

__all__ = ["SemanIRUNet"]


class SemanIRUNet(Restorer):
    """U-shaped SemanIR: stages going down and up, skips by concatenation, a final stage, and the image added back.

    Args:
        name: Preset name or ``"custom"``.
        task: Task name of the spec.
        channels: Image channels in and out.
        embed_dim: Feature width C of the finest level; each level down doubles it.
        depths: Layers of each level from the finest to the coarsest; decoders mirror the encoders.
        final_depth: Layers of the final stage.
        head_dim: Width of a head; level l has ``C * 2^l / head_dim`` heads.
        window_size: Attention window of every level.
        top_k: Keys per query.
        mlp_ratio: Hidden width of the MLP over the width.
        scale: Must be 1.
        noise_level: Noise the weights are for, see `ModelSpec`.
    """

    def __init__(
        self,
        *,
        name: str = "custom",
        task: str = "denoising",
        channels: int = 3,
        embed_dim: int = 60,
        depths: Sequence[int] = (6, 4, 8),
        final_depth: int = 4,
        head_dim: int = 30,
        window_size: int = 16,
        top_k: int = 128,
        mlp_ratio: float = 2.0,
        scale: int = 1,
        noise_level: float | None = None,
    ) -> None:
        if scale != 1:
            raise ValueError(f"the U-shaped network keeps the size of the image, got scale {scale}")
        levels = len(depths)
        multiple = window_size * 2 ** (levels - 1)
        super().__init__(ModelSpec("semanir", name, task, 1, channels, window_size, multiple, 1.0, top_k, noise_level))

        def stage(level: int, depth: int, shifted: bool) -> SemanticStage:
            width = embed_dim * 2**level
            shift = window_size // 2 if shifted else 0
            return SemanticStage(depth, width, width // head_dim, window_size, shift, top_k, mlp_ratio)

        widths = [embed_dim * 2**level for level in range(levels)]
        self.conv_first = nn.Conv2d(channels, embed_dim, 3, 1, 1)
        self.encoder = nn.ModuleList(stage(level, depth, level % 2 == 1) for level, depth in enumerate(depths))
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width // 2, 3, 1, 1), nn.PixelUnshuffle(2)) for width in widths[:-1]
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width * 2, width * 4, 3, 1, 1), nn.PixelShuffle(2)) for width in widths[:-1]
        )
        self.merge = nn.ModuleList(nn.Linear(2 * width, width) for width in widths[:-1])
        self.decoder = nn.ModuleList(stage(level, depth, level % 2 == 0) for level, depth in enumerate(depths[:-1]))
        self.final = stage(0, final_depth, False)
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, 1, 1)
        self.conv_last = nn.Conv2d(embed_dim, channels, 3, 1, 1)
        add_geometry(self, window_size, top_k)
        self.apply(initialise)

    def network(self, images: Tensor) -> Tensor:
        """Restores ``[B, C, H, W]`` in 0..1; sides are multiples of ``spec.pad_multiple``."""
        normalised = self.normalise(images)
        shallow = self.conv_first(normalised)
        x = shallow.permute(0, 2, 3, 1)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoder):
            x = encoder(x)
            if level < len(self.down):
                skips.append(x)
                x = convolve(self.down[level], x)
        for level in reversed(range(len(self.up))):
            risen = convolve(self.up[level], x)
            x = self.decoder[level](self.merge[level](torch.cat([risen, skips[level]], -1)))
        features = self.norm(self.final(x)).permute(0, 3, 1, 2)
        deep = self.conv_after_body(features) + shallow
        return self.denormalise(self.conv_last(deep) + normalised)
