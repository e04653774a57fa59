"""Layers that families share: MLP, pre-norm block, stage, residual convolution, up-sampling heads.

Features travel channels-last, ``[B, H, W, C]``; convolutions see them channels-first. Attribute names follow the
released SwinIR code, so that state dicts of that layout load unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from .fusion import Surroundings, linear_of, run_fused

__all__ = [
    "UPS",
    "Block",
    "HeadedAttention",
    "LayerGroup",
    "Mlp",
    "Stage",
    "UpsampleHead",
    "convolve",
    "initialise",
    "residual_convolution",
    "table_parameter",
]


UPS = ("conv_up1", "conv_up2", "conv_up3")
"""Convolutions of the real-world head, each after an enlargement by 2."""


def convolve(convolution: nn.Module, features: Tensor) -> Tensor:
    """Applies a channels-first convolution to channels-last features."""
    output: Tensor = convolution(features.permute(0, 3, 1, 2))
    return output.permute(0, 2, 3, 1)


def residual_convolution(width: int, kind: str) -> nn.Module:
    """The convolution that ends a stage: ``"1conv"`` (3x3) or ``"3conv"`` (3x3, 1x1, 3x3 at a quarter width)."""
    if kind == "1conv":
        return nn.Conv2d(width, width, 3, 1, 1)
    return nn.Sequential(
        nn.Conv2d(width, width // 4, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 4, width // 4, 1, 1, 0),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width // 4, width, 3, 1, 1),
    )


class Mlp(nn.Module):
    """Linear, GELU, Linear over the last dimension."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., C]``."""
        output: Tensor = self.fc2(self.act(self.fc1(x)))
        return output


class HeadedAttention(nn.Module):
    """What window attention of several heads has: its sizes, qkv and output projections.

    Args:
        width: Feature width C.
        num_heads: Heads; divides C.
        window_size: Attention window.
        shift_size: Cyclic shift.
    """

    def __init__(self, width: int, num_heads: int, window_size: int, shift_size: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"{width} channels do not divide into {num_heads} heads")
        self.num_heads, self.window_size, self.shift_size = num_heads, window_size, shift_size
        self.use_operator = True
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same; H and W multiples of the window. `context` goes to `attend`."""
        output: Tensor = self.proj(self.attend(self.qkv(x), *context))
        return output

    def attend(self, qkv: Tensor, *context: Tensor) -> Tensor:
        """Attention of ``[B, H, W, 3C]``, before the output projection."""
        raise NotImplementedError

    def surroundings(self) -> Surroundings | None:
        """See `Fusable.surroundings`."""
        if type(self.qkv) is not nn.Linear or type(self.proj) is not nn.Linear:
            return None
        return Surroundings(linear_of(self.qkv), linear_of(self.proj))


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attention(LN(x))``, then ``x + MLP(LN(x))``.

    With `fuse` it runs fused on CUDA, where nothing needs to see its layers (`run_fused`).
    """

    def __init__(self, width: int, attention: nn.Module, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.fuse = False

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same; `context` (a stage's dictionary) goes to the attention."""
        if self.fuse and (fused := run_fused(self, x, *context)) is not None:
            return fused
        x = x + self.attn(self.norm1(x), *context)
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class LayerGroup(nn.Module):
    """The blocks of a stage, under the name the released code gives them."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class Stage(nn.Module):
    """Blocks, a convolution, and a skip around both (SwinIR's residual Swin transformer block)."""

    def __init__(self, blocks: Sequence[nn.Module], width: int, kind: str = "1conv") -> None:
        super().__init__()
        self.residual_group = LayerGroup(blocks)
        self.conv = residual_convolution(width, kind)

    def context(self, x: Tensor) -> tuple[Tensor, ...]:
        """What every block of the stage is given besides its input."""
        del x
        return ()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same."""
        context = self.context(x)
        features = x
        for block in self.residual_group.blocks:
            features = block(features, *context)
        return x + convolve(self.conv, features)


class UpsampleHead(nn.Module):
    """Reconstruction ``[B, C, H, W]`` to ``[B, channels, s*H, s*W]`` by one of SwinIR's four heads.

    ``"pixelshuffle"`` (classical), ``"pixelshuffledirect"`` (lightweight), ``"nearest+conv"`` (real-world) and ``""``
    (a convolution, scale 1). It is mixed into the network so that its layers keep their released names.
    """

    upsampler: str

    def add_head(self, width: int, features: int, scale: int, channels: int) -> None:
        """Creates the layers of ``self.upsampler`` on self."""
        if self.upsampler == "pixelshuffledirect":
            shuffle = nn.Conv2d(width, channels * scale**2, 3, 1, 1)
            self.upsample = nn.Sequential(shuffle, nn.PixelShuffle(scale))
            return
        if self.upsampler == "":
            self.conv_last = nn.Conv2d(width, channels, 3, 1, 1)
            return
        before = nn.Conv2d(width, features, 3, 1, 1)
        self.conv_before_upsample = nn.Sequential(before, nn.LeakyReLU(0.01))
        if self.upsampler == "pixelshuffle":
            steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
            layers: list[nn.Module] = []
            for step in steps:
                layers += [
                    nn.Conv2d(features, features * step**2, 3, 1, 1),
                    nn.PixelShuffle(step),
                ]
            self.upsample = nn.Sequential(*layers)
        else:
            for name in UPS[: max(1, scale.bit_length() - 1)]:
                setattr(self, name, nn.Conv2d(features, features, 3, 1, 1))
            self.conv_hr = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_last = nn.Conv2d(features, channels, 3, 1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Applies the head to channels-first features."""
        if self.upsampler == "pixelshuffledirect":
            direct: Tensor = self.upsample(x)
            return direct
        if self.upsampler == "pixelshuffle":
            x = self.upsample(self.conv_before_upsample(x))
        elif self.upsampler == "nearest+conv":
            x = self.conv_before_upsample(x)
            for name in UPS:
                if hasattr(self, name):
                    larger = interpolate(x, scale_factor=2, mode="nearest")
                    x = leaky_relu(getattr(self, name)(larger), 0.2)
            x = leaky_relu(self.conv_hr(x), 0.2)
        last: Tensor = self.conv_last(x)
        return last


def initialise(module: nn.Module) -> None:
    """Initial values for training: truncated normal 0.02 for Linear, ones and zeros for LayerNorm (SwinIR)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def table_parameter(window_size: int, heads: int) -> nn.Parameter:
    """A relative position bias table ``[(2w-1)^2, heads]``, truncated normal 0.02."""
    table = torch.zeros((2 * window_size - 1) ** 2, heads)
    nn.init.trunc_normal_(table, std=0.02)
    return nn.Parameter(table)
