"""A block with (shifted) window attention of Swin's kind, its attention an operator of this package."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ..window_attention import WindowAttention

__all__ = ["WindowBlock", "window_block"]

WANTED = ("norm1", "attn", "norm2", "mlp", "window_size", "shift_size")


class WindowBlock(nn.Module):
    """Takes the layers of a block of Swin's kind: ``x + attention(LN(x)) [+ a CNN of LN(x)]``, then ``x + MLP(LN(x))``.

    The CNN beside the attention is HAT's (arXiv 2205.04437, equation 3).

    Args:
        block: The block whose layers it takes over.
        attention: Its attention.
    """

    def __init__(self, block: Any, attention: WindowAttention) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, attention, block.norm2, block.mlp
        self.conv_block: nn.Module | None = getattr(block, "conv_block", None)
        self.conv_scale: float = getattr(block, "conv_scale", 1.0)

    def forward(self, x: Tensor, x_size: tuple[int, int], *_: Any, **__: Any) -> Tensor:
        """``[B, H*W, C]`` and (H, W) to the same tokens; masks and position indices are not needed."""
        normed = self.norm1(x).unflatten(1, x_size)
        attended = self.attn(normed).flatten(1, 2)
        if self.conv_block is not None:
            beside = self.conv_block(normed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)
            attended = attended + beside * self.conv_scale
        x = x + attended
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


def window_block(module: Any) -> WindowBlock | None:
    """The block that can stand in for a module, by its layers and their shapes; None where it is of another kind."""
    if isinstance(module, WindowBlock) or not all(hasattr(module, name) for name in WANTED):
        return None
    window, shift = module.window_size, module.shift_size
    attention = module.attn
    qkv, proj, table = (getattr(attention, name, None) for name in ("qkv", "proj", "relative_position_bias_table"))
    if not (isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear) and isinstance(table, nn.Parameter)):
        return None
    if type(window) is not int or type(shift) is not int or table.ndim != 2:
        return None
    width, heads = proj.in_features, table.shape[1]
    fits = table.shape[0] == (2 * window - 1) ** 2 and qkv.out_features == 3 * width and width % heads == 0
    if not fits or not math.isclose(getattr(attention, "scale", 0.0), (width // heads) ** -0.5, rel_tol=1e-6):
        return None
    own = WindowAttention(width, heads, window, shift)
    own.qkv, own.proj, own.relative_position_bias_table = qkv, proj, table
    return WindowBlock(module, own)
