"""AgileIR (arXiv 2409.06206): SwinIR's layout with group shifted window attention in every block.

The paper's meaning is implemented. The authors' released code (XcloudFance/AgileIR) computes the attention and then
discards it; ``attention="bypassed"`` reproduces that behaviour, and only when asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..plugins import group_shifted_window_attention, plain_group_attention
from ..plugins.windows import attend, from_windows, position_bias, shift_mask, to_windows
from .base import Restorer
from .columnar import ColumnarNetwork
from .inference import BLOCK, columnar_hyperparameters, count_children, window_from_table
from .layers import Block, Stage, initialise, table_parameter
from .options import ATTENTION_FORMS
from .registry import Family, register
from .spec import ModelSpec

__all__ = ["AgileIR", "ConvNorm", "GroupAttention", "ReleasedCodeWarning"]

DEPTHWISE_KERNEL = 5


class ReleasedCodeWarning(UserWarning):
    """A checkpoint was trained with AgileIR's released code, whose attention has no effect on the output."""


class ConvNorm(nn.Module):
    """A convolution with BatchNorm, or with a bias where the network has none.

    Args:
        conv: The convolution, without bias when `norm` is given.
        norm: Its BatchNorm, or None.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.c = conv
        if norm is not None:
            self.bn = norm

    def forward(self, x: Tensor) -> Tensor:
        """Channels-first ``[n, Cin, h, w]`` to ``[n, Cout, h, w]``, with batch statistics while training."""
        output: Tensor = self.c(x)
        return self.bn(output) if hasattr(self, "bn") else output

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight ``W g/sqrt(v+eps)`` and bias ``b - m g/sqrt(v+eps)``: the BatchNorm's running statistics folded in."""
        if not hasattr(self, "bn"):
            assert self.c.bias is not None
            return self.c.weight, self.c.bias
        norm = self.bn
        assert norm.running_var is not None and norm.running_mean is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.c.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def _conv_norm(channels_in: int, channels_out: int, kernel: int, groups: int, batch_norm: bool) -> ConvNorm:
    conv = nn.Conv2d(channels_in, channels_out, kernel, 1, kernel // 2, groups=groups, bias=not batch_norm)
    return ConvNorm(conv, nn.BatchNorm2d(channels_out) if batch_norm else None)


def _folded(module: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(module, ConvNorm)
    return module.folded()


class GroupConvolutions(nn.Module):
    """Projections, depthwise filters and output projection, under their released names."""

    def __init__(self, width: int, groups: int, key_dim: int, batch_norm: bool) -> None:
        super().__init__()
        each = width // groups
        self.qkvs = nn.ModuleList(_conv_norm(each, 2 * key_dim + each, 1, 1, batch_norm) for _ in range(groups))
        self.dws = nn.ModuleList(
            _conv_norm(key_dim, key_dim, DEPTHWISE_KERNEL, key_dim, batch_norm) for _ in range(groups)
        )
        self.proj = nn.Sequential(nn.ReLU(), _conv_norm(width, width, 1, 1, batch_norm))


class GroupAttention(nn.Module):
    """Group shifted window attention with ReLU and output projection (arXiv 2409.06206; released layout of weights).

    Args:
        width: Feature width C, a multiple of `groups`.
        groups: Number of groups G, one head each.
        key_dim: Width dk of queries and keys.
        window_size: Attention window.
        shift_size: Cyclic shift.
        batch_norm: Whether convolutions carry a BatchNorm (the released form) or a bias.
        bypassed: Return the input, as the authors' released code does.
    """

    def __init__(
        self,
        width: int,
        groups: int,
        key_dim: int,
        window_size: int,
        shift_size: int,
        *,
        batch_norm: bool = True,
        bypassed: bool = False,
    ) -> None:
        super().__init__()
        if groups < 1 or width % groups:
            raise ValueError(f"{width} channels do not divide into {groups} groups")
        self.window_size, self.shift_size, self.key_dim = window_size, shift_size, key_dim
        self.batch_norm, self.bypassed, self.use_operator = batch_norm, bypassed, True
        self.relative_position_bias_table = table_parameter(window_size, groups)
        self.groupatt = GroupConvolutions(width, groups, key_dim, batch_norm)
        self._frozen: tuple[str, ...] = ()

    def weights(self) -> tuple[Tensor, ...]:
        """The operator's four (qkv_weight, qkv_bias, q_dw_weight, q_dw_bias), then proj_weight and proj_bias."""
        if self._frozen:
            return tuple(getattr(self, name) for name in self._frozen)
        qkv = [_folded(module) for module in self.groupatt.qkvs]
        depthwise = [_folded(module) for module in self.groupatt.dws]
        projection, bias = _folded(self.groupatt.proj[1])
        return (
            torch.stack([weight.flatten(1) for weight, _ in qkv]),
            torch.stack([bias for _, bias in qkv]),
            torch.stack([weight[:, 0] for weight, _ in depthwise]),
            torch.stack([bias for _, bias in depthwise]),
            projection.flatten(1),
            bias,
        )

    def freeze(self) -> None:
        """Folds the BatchNorms for good: the stacked operator weights replace the separate convolutions."""
        if self._frozen:
            return
        names = ("qkv_weight", "qkv_bias", "q_dw_weight", "q_dw_bias", "proj_weight", "proj_bias")
        for name, weight in zip(names, self.weights(), strict=True):
            self.register_buffer(name, weight.detach().clone().contiguous())
        self._frozen = names
        del self.groupatt

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same; H and W multiples of the window."""
        if self.bypassed:
            return x
        if self.training and self.batch_norm and not self._frozen:
            return self._with_batch_statistics(x)
        *weights, projection, bias = self.weights()
        inputs = (*weights, self.relative_position_bias_table)
        operator: Callable[..., Tensor] = group_shifted_window_attention if self.use_operator else plain_group_attention
        y = operator(x, *(w.to(x.dtype) for w in inputs), self.window_size, self.shift_size)
        return nn.functional.linear(torch.relu(y), projection, bias)

    def _with_batch_statistics(self, x: Tensor) -> Tensor:
        """Training with BatchNorm: statistics of the batch are needed between projection and attention."""
        _, height, width, channels = x.shape
        side, shift = self.window_size, self.shift_size
        windows = to_windows(x, side, shift)
        bias = position_bias(self.relative_position_bias_table, side)
        mask = shift_mask(height, width, side, shift, bias)
        if mask is not None:
            mask = mask.repeat(x.shape[0], 1, 1)
        modules = self.groupatt
        chunks = windows.transpose(1, 2).unflatten(2, (side, side)).chunk(len(modules.qkvs), 1)
        outputs: list[Tensor] = []
        for chunk, qkv, depthwise, own in zip(chunks, modules.qkvs, modules.dws, bias, strict=True):
            fed = chunk + outputs[-1] if outputs else chunk
            query, key, value = qkv(fed).split([self.key_dim, self.key_dim, chunk.shape[1]], dim=1)
            query, key, value = (t.flatten(2).transpose(1, 2) for t in (depthwise(query), key, value))
            addend = own if mask is None else own + mask
            output = attend(query, key, value, addend, self.key_dim**-0.5)
            outputs.append(output.transpose(1, 2).reshape(chunk.shape))
        y = modules.proj(torch.cat(outputs, 1))
        tokens = y.flatten(2).transpose(1, 2).reshape(-1, side * side, channels)
        return from_windows(tokens, height, width, side, shift)


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
        self.apply(initialise)


def _set_attention(model: Restorer, form: str) -> None:
    if not isinstance(model, AgileIR):
        family = model.spec.family
        raise ValueError(f"it is a {family} model, and only AgileIR's released code discards the attention")
    for module in model.modules():
        if isinstance(module, GroupAttention):
            module.bypassed = form == "bypassed"


def _warn_of_released_code(model: Restorer, path: Path) -> None:
    """Warns where every output projection's BatchNorm kept its initial zero scale: the released code trained it."""
    scales = [value for key, value in model.state_dict().items() if key.endswith("attn.groupatt.proj.1.bn.weight")]
    if scales and not any(scale.any() for scale in scales):
        warnings.warn(
            f"{path} was trained with AgileIR's released code, which discards the attention (every output projection "
            'kept its initial zero scale). It runs with attention as in the paper; attention="bypassed" reproduces '
            "the released behaviour.",
            ReleasedCodeWarning,
            stacklevel=5,  # the caller of load_model
        )


def _detect(state: Mapping[str, Tensor]) -> bool:
    return f"{BLOCK}.attn.groupatt.qkvs.0.c.weight" in state


def _infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    found = columnar_hyperparameters(state)
    prefixes = [f"layers.{i}.residual_group.blocks.0.attn" for i in range(len(found["depths"]))]
    found["num_heads"] = tuple(count_children(state, f"{p}.groupatt.qkvs") for p in prefixes)
    found["key_dims"] = tuple(state[f"{prefix}.groupatt.dws.0.c.weight"].shape[0] for prefix in prefixes)
    found["window_size"] = window_from_table(state[f"{prefixes[0]}.relative_position_bias_table"])
    found["batch_norm"] = any(".groupatt.qkvs.0.bn." in key for key in state)
    return found


_BIG = {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "key_dims": (16,) * 6}
_LIGHT = {"embed_dim": 96, "depths": (6, 8, 6), "num_heads": (12,) * 3, "key_dims": (32,) * 3}
_LIGHTEST = {
    "embed_dim": 60,
    "depths": (8,) * 4,
    "num_heads": (6,) * 4,
    "key_dims": (16,) * 4,
    "window_size": 8,
}
# trained weights are in models/weights; short stages, because 3x3 convolutions are cheap on a CPU
_TINY = {
    "embed_dim": 48,
    "depths": (2,) * 4,
    "num_heads": (3,) * 4,
    "key_dims": (16,) * 4,
    "window_size": 8,
    "batch_norm": False,
}

register(
    Family(
        name="agileir",
        network=lambda hyperparameters: AgileIR,
        presets={
            f"{name}_x{scale}": {**shape, "scale": scale}
            for name, shape, scales in (
                ("agileir", _BIG, (2, 3, 4)),
                ("agileir_light", _LIGHT, (2, 3, 4)),
                ("agileir_lightest", _LIGHTEST, (2, 3, 4)),
                ("agileir_tiny", _TINY, (2, 4)),
            )
            for scale in scales
        },
        detect=_detect,
        infer=_infer,
        paper="arXiv 2409.06206",
        derived=("attn.relative_position_index", "attn_mask", "num_batches_tracked"),
        options={"attention": _set_attention},
        filled=_warn_of_released_code,
    )
)
