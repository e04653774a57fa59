"""The U-shaped SemanIR for restoration at the input's size, and the registration of the whole family.

The papers give the total of 25.82 M parameters and that skips use concatenation and addition; widths, depths and
window are our reading, and the presets come to 25.80 M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import semanir
from .base import Restorer
from .inference import count_children
from .layers import convolve, initialise
from .registry import Family, register
from .semanir import SemanIR, SemanticStage, add_geometry
from .spec import ModelSpec

__all__ = ["SemanIRUNet"]

FIRST = "encoder.0.residual_group.blocks.0"


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


def _detect(state: Mapping[str, Tensor]) -> bool:
    return semanir.detect(state) or f"{FIRST}.attn.cpb_mlp.0.weight" in state


def _infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    if semanir.detect(state):
        return semanir.infer(state)
    embed_dim, channels = state["conv_first.weight"].shape[:2]
    levels = count_children(state, "encoder")
    window_size, top_k = (int(value) for value in state["geometry"])
    return {
        "channels": channels,
        "embed_dim": embed_dim,
        "depths": tuple(count_children(state, f"encoder.{i}.residual_group.blocks") for i in range(levels)),
        "final_depth": count_children(state, "final.residual_group.blocks"),
        "head_dim": embed_dim // state[f"{FIRST}.attn.cpb_mlp.2.weight"].shape[0],
        "window_size": window_size,
        "top_k": top_k,
        "mlp_ratio": state[f"{FIRST}.mlp.fc1.weight"].shape[0] / embed_dim,
    }


def _network(hyperparameters: Mapping[str, Any]) -> type[Restorer]:
    return SemanIRUNet if "final_depth" in hyperparameters else SemanIR


_SMALL = {"depths": (6,) * 6}
_BASE = {"depths": (8,) * 8}
_UNET = {"embed_dim": 112, "depths": (4, 4, 8), "final_depth": 6, "head_dim": 28}  # 25.80 M parameters
# trained weights of these are in models/weights
_TINY = {
    "embed_dim": 48,
    "depths": (2,) * 3,
    "num_heads": 1,
    "window_size": 16,
    "top_k": 64,
    "upsampler": "pixelshuffledirect",
}
_TINY_UNET = {
    "embed_dim": 32,
    "depths": (1, 2),
    "final_depth": 1,
    "head_dim": 32,
    "window_size": 8,
    "top_k": 32,
    "task": "denoising",
}

register(
    Family(
        name="semanir",
        network=_network,
        presets={
            **{f"semanir_s_x{s}": {**_SMALL, "scale": s} for s in (2, 3, 4)},
            **{f"semanir_b_x{s}": {**_BASE, "scale": s} for s in (2, 3, 4)},
            "semanir_tiny_x2": {**_TINY, "scale": 2},
            "semanir_tiny_dn25": {**_TINY_UNET, "noise_level": 25.0},
            "semanir_denoise_color": {**_UNET, "task": "denoising"},
            "semanir_denoise_grey": {**_UNET, "task": "denoising", "channels": 1},
            "semanir_jpeg_color": {**_UNET, "task": "jpeg"},
            "semanir_jpeg_grey": {**_UNET, "task": "jpeg", "channels": 1},
            "semanir_deblur": {**_UNET, "task": "deblurring"},
            "semanir_demosaic": {**_UNET, "task": "demosaicking"},
            "semanir_demosaic_raw": {**_UNET, "task": "demosaicking", "channels": 4},
            "semanir_weather": {**_UNET, "task": "adverse-weather"},
        },
        detect=_detect,
        infer=_infer,
        paper="arXiv 2405.20008",
        options={"top_k": semanir.set_top_k},
        filled=semanir.take_geometry,
        random_gains={"cpb_mlp.0": 2.0},
    )
)
