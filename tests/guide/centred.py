"""A family of one preset: SwinIR's layout with the operator `window_centre`, and a gain, in place of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..plugins.window_centre.operator import window_centre
from .columnar import ColumnarNetwork
from .inference import BLOCK, columnar_hyperparameters
from .layers import Block, Stage
from .registry import Family, register
from .spec import ModelSpec

__all__ = ["Centred"]

WINDOW_SIZE = 4


class Centre(nn.Module):
    """The operator, with a gain for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same."""
        return window_centre(x, WINDOW_SIZE) * self.gain


class Centred(ColumnarNetwork):
    """The network; arguments as `SwinIR`'s."""

    def __init__(
        self,
        *,
        name: str = "custom",
        task: str = "super-resolution",
        scale: int = 2,
        channels: int = 3,
        embed_dim: int = 8,
        depths: Sequence[int] = (1,),
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffledirect",
        resi_connection: str = "1conv",
        num_feat: int = 64,
    ) -> None:
        spec = ModelSpec("centred", name, task, scale, channels, WINDOW_SIZE, WINDOW_SIZE)
        stages = [
            Stage([Block(embed_dim, Centre(embed_dim), mlp_ratio) for _ in range(depth)], embed_dim, resi_connection)
            for depth in depths
        ]
        super().__init__(spec, stages, embed_dim, upsampler, resi_connection, num_feat)


def _detect(state: Mapping[str, Tensor]) -> bool:
    return f"{BLOCK}.attn.gain" in state


register(
    Family(
        name="centred",
        network=lambda hyperparameters: Centred,
        presets={"centred_x2": {"depths": (2,)}},
        detect=_detect,
        infer=columnar_hyperparameters,
        paper="none: it is a toy",
    )
)
