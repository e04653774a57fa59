"""SwinIR (arXiv 2108.10257): the baseline. Loads the released state dicts unchanged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import Unsupported
from .columnar import ColumnarNetwork
from .inference import BLOCK, UNKNOWN_TASK, columnar_hyperparameters, window_from_table
from .layers import Block, Stage
from .origin import Assumption
from .registry import Family, register
from .spec import ModelSpec
from .window_attention import WindowAttention

__all__ = ["SwinIR"]

JPEG_WINDOW = 7
"""The released JPEG models, and only they, have this window; their pictures are scaled to 0..255."""

UNSHUFFLED = "conv_first.1.weight"
"""The first convolution behind a pixel-unshuffle (DiffBIR's variant of the released code)."""


class SwinIR(ColumnarNetwork):
    """SwinIR with the operator `shifted_window_attention` in every block.

    Args:
        name: Preset name or ``"custom"``.
        task: Task name of the spec.
        scale: Up-scaling factor.
        channels: Image channels.
        embed_dim: Feature width C.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        window_size: Attention window.
        mlp_ratio: Hidden width of the MLP over C.
        upsampler: Reconstruction head, see `UpsampleHead`.
        resi_connection: ``"1conv"`` or ``"3conv"``.
        num_feat: Width of the head.
        img_range: 1.0, or 255.0 for the JPEG models.
        unshuffle: Factor by which the input is pixel-unshuffled before the first convolution; DiffBIR has 8.
    """

    def __init__(
        self,
        *,
        name: str = "custom",
        task: str = "super-resolution",
        scale: int = 1,
        channels: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (6,) * 6,
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffle",
        resi_connection: str = "1conv",
        num_feat: int = 64,
        img_range: float = 1.0,
        unshuffle: int = 1,
    ) -> None:
        spec = ModelSpec("swinir", name, task, scale, channels, window_size, window_size * unshuffle, img_range)
        stages = [
            Stage(
                [
                    Block(
                        embed_dim,
                        WindowAttention(embed_dim, heads, window_size, window_size // 2 if index % 2 else 0),
                        mlp_ratio,
                    )
                    for index in range(depth)
                ],
                embed_dim,
                resi_connection,
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        ]
        super().__init__(spec, stages, embed_dim, upsampler, resi_connection, num_feat, unshuffle)


HYBRID = f"{BLOCK}.conv_block.cab.0.weight"
"""HAT's blocks are SwinIR's with a convolution beside the attention."""


def _detect(state: Mapping[str, Tensor]) -> bool:
    own = f"{BLOCK}.attn.qkv.weight" in state and f"{BLOCK}.attn.relative_position_bias_table" in state
    return own and HYBRID not in state


def _infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    unshuffled = state.get(UNSHUFFLED)
    found = columnar_hyperparameters(state if unshuffled is None else {**state, "conv_first.weight": unshuffled})
    tables = [
        state[f"layers.{i}.residual_group.blocks.0.attn.relative_position_bias_table"]
        for i in range(len(found["depths"]))
    ]
    found["num_heads"] = tuple(table.shape[1] for table in tables)
    found["window_size"] = window_from_table(tables[0])
    if unshuffled is not None:
        found.update(_unshuffled(found, state))
    elif found["upsampler"] == "" and found["window_size"] == JPEG_WINDOW:
        found.update(img_range=255.0, task="jpeg")
    return found


def _unshuffled(found: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Factor, channels and scale of a network with pixel-unshuffled input.

    Raises:
        ValueError: The channels of the first convolution are no square multiple of the picture's.
        Unsupported: The head enlarges by less than the input is reduced.
    """
    inputs, head = found["channels"], found["scale"]
    direct = found["upsampler"] == "pixelshuffledirect"
    outputs = state["upsample.0.weight" if direct else "conv_last.weight"].shape[0]
    for channels in (3, 1) if direct else (outputs,):  # a direct head shows the product of channels and scale alone
        unshuffle, enlarge = (math.isqrt(width // channels) for width in (inputs, outputs))
        if unshuffle and unshuffle**2 * channels == inputs and (not direct or enlarge**2 * channels == outputs):
            break
    else:
        raise ValueError(f"{inputs} channels into conv_first.1 are no pixel-unshuffled picture")
    head = enlarge if direct else head
    if head % unshuffle:
        raise Unsupported(
            f"its input is pixel-unshuffled by {unshuffle}, and its head enlarges by {head} only.",
            why="The output would be smaller than the input, which no runner here can crop.",
            fix="Networks that keep or enlarge the picture can be run, such as DiffBIR's with 8 and 8.",
        )
    task = {"task": UNKNOWN_TASK} if head == unshuffle else {}
    return {"channels": channels, "unshuffle": unshuffle, "scale": head // unshuffle, **task}


def _assumed(found: Mapping[str, Any]) -> dict[str, Assumption]:
    """What SwinIR's weights do not hold."""
    size = found["window_size"]
    assumed = {"shift_size": Assumption(size // 2, "half the window in every second block, the released code's")}
    if "img_range" in found:
        why = f"window {size} without an up-sampler: taken for one of the JPEG models"
        assumed |= {name: Assumption(found[name], why) for name in ("img_range", "task")}
    elif "unshuffle" in found and found["upsampler"] == "pixelshuffledirect":
        assumed["channels"] = Assumption(found["channels"], "the first of 3 and 1 that fits")
    return assumed


_CLASSICAL = {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "window_size": 8}
_LIGHT = {"embed_dim": 60, "depths": (6,) * 4, "num_heads": (6,) * 4, "window_size": 8}
_PLAIN = {**_CLASSICAL, "upsampler": "", "scale": 1}
_JPEG = {**_PLAIN, "window_size": JPEG_WINDOW, "img_range": 255.0, "task": "jpeg"}

register(
    Family(
        name="swinir",
        network=lambda hyperparameters: SwinIR,
        presets={
            **{f"swinir_classical_x{s}": {**_CLASSICAL, "scale": s} for s in (2, 3, 4, 8)},
            **{f"swinir_light_x{s}": {**_LIGHT, "scale": s, "upsampler": "pixelshuffledirect"} for s in (2, 3, 4)},
            "swinir_real_x2": {**_CLASSICAL, "scale": 2, "upsampler": "nearest+conv"},
            "swinir_real_x4": {**_CLASSICAL, "scale": 4, "upsampler": "nearest+conv"},
            "swinir_real_large_x4": {
                "embed_dim": 240,
                "depths": (6,) * 9,
                "num_heads": (8,) * 9,
                "window_size": 8,
                "scale": 4,
                "upsampler": "nearest+conv",
                "resi_connection": "3conv",
            },
            "swinir_denoise_color": {**_PLAIN, "task": "denoising"},
            "swinir_denoise_grey": {**_PLAIN, "task": "denoising", "channels": 1},
            "swinir_jpeg_color": _JPEG,
            "swinir_jpeg_grey": {**_JPEG, "channels": 1},
        },
        detect=_detect,
        infer=_infer,
        assumed=_assumed,
        paper="arXiv 2108.10257",
        derived=("attn.relative_position_index", "attn_mask"),
        released={
            **{f"swinir_classical_x{s}": f"001_classicalSR_DF2K_s64w8_SwinIR-M_x{s}.pth" for s in (2, 3, 4, 8)},
            **{f"swinir_light_x{s}": f"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{s}.pth" for s in (2, 3, 4)},
            **{f"swinir_real_x{s}": f"003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x{s}_GAN.pth" for s in (2, 4)},
            "swinir_real_large_x4": "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN.pth",
            "swinir_denoise_grey": "004_grayDN_DFWB_s128w8_SwinIR-M_noise*.pth",
            "swinir_denoise_color": "005_colorDN_DFWB_s128w8_SwinIR-M_noise*.pth",
            "swinir_jpeg_grey": "006_CAR_DFWB_s126w7_SwinIR-M_jpeg*.pth",
            "swinir_jpeg_color": "006_colorCAR_DFWB_s126w7_SwinIR-M_jpeg*.pth",
        },
        releases="release v0.0 of github.com/JingyunLiang/SwinIR",
    )
)
