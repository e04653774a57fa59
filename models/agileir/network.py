"""The network: SwinIR's layout with group attention in every block."""

from __future__ import annotations

from collections.abc import Sequence

from ..columnar import ColumnarNetwork
from ..layers import Block, Stage
from ..options import ATTENTION_FORMS
from ..spec import ModelSpec
from .attention import GroupAttention

__all__ = ["AgileIR"]


class AgileIR(ColumnarNetwork):
    """AgileIR.

    Args:
        name: Preset name or ``"custom"``.
        task: Task name of the spec.
        scale: Up-scaling factor.
        channels: Image channels.
        embed_dim: Feature width C.
        depths: Blocks of each stage.
        num_heads: Groups of each stage.
        key_dims: Query and key width of each stage.
        window_size: Attention window.
        mlp_ratio: Hidden width of the MLP over C.
        upsampler: Reconstruction head, see `UpsampleHead`.
        resi_connection: ``"1conv"`` or ``"3conv"``.
        num_feat: Width of the head.
        img_range: Range of the network's inner values.
        batch_norm: BatchNorm in the attention (the released form) or biases.
        attention: ``"paper"``, or ``"bypassed"`` as in the authors' released code.
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
        num_heads: Sequence[int] = (6,) * 6,
        key_dims: Sequence[int] = (16,) * 6,
        window_size: int = 16,
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffledirect",
        resi_connection: str = "1conv",
        num_feat: int = 64,
        img_range: float = 1.0,
        batch_norm: bool = True,
        attention: str = "paper",
    ) -> None:
        if attention not in ATTENTION_FORMS:
            raise ValueError(f'attention must be "paper" or "bypassed", got {attention!r}')
        spec = ModelSpec("agileir", name, task, scale, channels, window_size, window_size, img_range)

        def block(index: int, groups: int, key_dim: int) -> Block:
            attend = GroupAttention(
                embed_dim,
                groups,
                key_dim,
                window_size,
                window_size // 2 if index % 2 else 0,
                batch_norm=batch_norm,
                bypassed=attention == "bypassed",
            )
            return Block(embed_dim, attend, mlp_ratio)

        stages = [
            Stage([block(i, groups, key_dim) for i in range(depth)], embed_dim, resi_connection)
            for depth, groups, key_dim in zip(depths, num_heads, key_dims, strict=True)
        ]
        super().__init__(spec, stages, embed_dim, upsampler, resi_connection, num_feat)
