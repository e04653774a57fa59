"""The columnar SemanIR: SwinIR's layout with key-semantic stages."""

from __future__ import annotations

from collections.abc import Sequence

from ..columnar import ColumnarNetwork
from ..spec import ModelSpec
from .attention import SemanticStage, add_geometry

__all__ = ["SemanIR"]


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
