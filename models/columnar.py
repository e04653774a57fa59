"""The columnar network of SwinIR, AgileIR and SemanIR: shallow convolution, stages, reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import Restorer
from .layers import UpsampleHead, initialise, residual_convolution
from .spec import ModelSpec

__all__ = ["ColumnarNetwork"]


class EmbeddingNorm(nn.Module):
    """The LayerNorm after the first convolution, under its released name ``patch_embed.norm``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same."""
        normed: Tensor = self.norm(x)
        return normed


class ColumnarNetwork(UpsampleHead, Restorer):
    """``conv3x3 -> LayerNorm -> stages -> LayerNorm -> conv + skip -> head`` (SwinIR, arXiv 2108.10257, figure 2).

    With ``unshuffle`` the input is pixel-unshuffled before the first convolution, as in DiffBIR (arXiv 2308.15070,
    released code): features are computed at a fraction of its size, and the head enlarges by as much more.
    """

    def __init__(
        self,
        spec: ModelSpec,
        stages: Sequence[nn.Module],
        embed_dim: int,
        upsampler: str,
        resi_connection: str = "1conv",
        num_feat: int = 64,
        unshuffle: int = 1,
    ) -> None:
        Restorer.__init__(self, spec)
        if unshuffle > 1 and upsampler == "":
            raise ValueError("a network whose input is pixel-unshuffled needs an up-sampler")
        self.upsampler = upsampler
        first = nn.Conv2d(spec.channels * unshuffle**2, embed_dim, 3, 1, 1)
        self.conv_first: nn.Module = first if unshuffle == 1 else nn.Sequential(nn.PixelUnshuffle(unshuffle), first)
        self.patch_embed = EmbeddingNorm(embed_dim)
        self.layers = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_convolution(embed_dim, resi_connection)
        self.add_head(embed_dim, num_feat, spec.scale * unshuffle, spec.channels)
        self.apply(initialise)

    def body(self, shallow: Tensor) -> Tensor:
        """All stages: ``[B, C, H, W]`` to the same."""
        features = self.patch_embed(shallow.permute(0, 2, 3, 1))
        for stage in self.layers:
            features = stage(features)
        deep: Tensor = self.conv_after_body(self.norm(features).permute(0, 3, 1, 2))
        return deep

    def network(self, images: Tensor) -> Tensor:
        """Restores ``[B, C, H, W]`` in 0..1; sides are multiples of ``spec.pad_multiple``."""
        normalised = self.normalise(images)
        shallow = self.conv_first(normalised)
        output = self.reconstruct(self.body(shallow) + shallow)
        if self.upsampler == "":
            output = output + normalised
        return self.denormalise(output)
