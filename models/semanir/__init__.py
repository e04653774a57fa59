"""SemanIR (arXiv 2405.20008; earlier KGT, 2402.02634): one key-semantic dictionary per stage, shared by its layers.

No code or weights are public. The following is not stated in any public source and therefore our reading: pre-norm
blocks; similarity as the dot product of the stage input after a LayerNorm without parameters; the shift alternating
per stage, so that one dictionary serves the stage; keys of other shift regions ranked last; a position bias of
``16*sigmoid(MLP)`` over log-spaced coordinates (Swin V2, arXiv 2111.09883; GRL, arXiv 2303.00748). The published
parameter counts of the columnar networks are met to the printed digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ..base import Restorer
from ..inference import BLOCK, columnar_hyperparameters, count_children
from ..origin import Assumption
from ..registry import Family, register
from .attention import KeySemanticAttention, SemanticStage, set_top_k
from .columnar import SemanIR
from .unet import SemanIRUNet

__all__ = ["KeySemanticAttention", "SemanIR", "SemanIRUNet", "SemanticStage", "set_top_k"]

UNET_BLOCK = "encoder.0.residual_group.blocks.0"

COSINE = "attn.logit_scale"
"""What Swin2SR, whose position bias comes from an MLP likewise, has in every block."""


def _detect(state: Mapping[str, Tensor]) -> bool:
    firsts = [first for first in (BLOCK, UNET_BLOCK) if f"{first}.attn.cpb_mlp.0.weight" in state]
    return any(f"{first}.{COSINE}" not in state for first in firsts)


def _infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return _infer_columnar(state) if f"{BLOCK}.attn.cpb_mlp.0.weight" in state else _infer_unet(state)


def _infer_columnar(state: Mapping[str, Tensor]) -> dict[str, Any]:
    found = columnar_hyperparameters(state)
    found["num_heads"] = state[f"{BLOCK}.attn.cpb_mlp.2.weight"].shape[0]
    found["window_size"], found["top_k"] = (int(value) for value in state["geometry"])
    return found


def _infer_unet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    embed_dim, channels = state["conv_first.weight"].shape[:2]
    levels = count_children(state, "encoder")
    window_size, top_k = (int(value) for value in state["geometry"])
    return {
        "channels": channels,
        "embed_dim": embed_dim,
        "depths": tuple(count_children(state, f"encoder.{i}.residual_group.blocks") for i in range(levels)),
        "final_depth": count_children(state, "final.residual_group.blocks"),
        "head_dim": embed_dim // state[f"{UNET_BLOCK}.attn.cpb_mlp.2.weight"].shape[0],
        "window_size": window_size,
        "top_k": top_k,
        "mlp_ratio": state[f"{UNET_BLOCK}.mlp.fc1.weight"].shape[0] / embed_dim,
    }


def _assumed(found: Mapping[str, Any]) -> dict[str, Assumption]:
    """What SemanIR's weights do not hold."""
    why = "half the window in every second stage: our reading of the paper"
    assumed = {"shift_size": Assumption(found["window_size"] // 2, why)}
    if "final_depth" in found:
        assumed["img_range"] = Assumption(1.0, "of every U-shaped network")
    return assumed


def _take_geometry(network: Restorer, path: Path) -> None:
    """Checks the window that loaded weights are for against the network's, and takes over their k."""
    window_size, top_k = network.get_buffer("geometry").tolist()
    if window_size != network.spec.window_size:
        raise CheckpointError(
            f"{path}: geometry says window {window_size}, {network.spec.name} has {network.spec.window_size}.",
            fix="Choose the preset the checkpoint was trained as.",
        )
    try:
        set_top_k(network, top_k)
    except ValueError as error:
        raise CheckpointError(f"{path}: geometry does not fit: {error}.") from error


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
        assumed=_assumed,
        paper="arXiv 2405.20008",
        options={"top_k": set_top_k},
        filled=_take_geometry,
        random_gains={"cpb_mlp.0": 2.0},
    )
)
