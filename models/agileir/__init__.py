"""AgileIR (arXiv 2409.06206): SwinIR's layout with group shifted window attention in every block.

The paper's meaning is implemented. The authors' released code (XcloudFance/AgileIR) computes the attention and then
discards it; ``attention="bypassed"`` reproduces that behaviour, and only when asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..base import Restorer
from ..inference import BLOCK, columnar_hyperparameters, count_children, window_from_table
from ..options import ATTENTION_FORMS
from ..origin import Assumption
from ..registry import Family, register
from .attention import ConvNorm, GroupAttention
from .network import AgileIR

__all__ = ["AgileIR", "ConvNorm", "GroupAttention", "ReleasedCodeWarning"]


class ReleasedCodeWarning(UserWarning):
    """A checkpoint was trained with AgileIR's released code, whose attention has no effect on the output."""


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


def _assumed(found: Mapping[str, Any]) -> dict[str, Assumption]:
    """What AgileIR's weights do not hold."""
    return {
        "shift_size": Assumption(
            found["window_size"] // 2, "half the window in every second block, the released code's"
        ),
        "attention": Assumption(ATTENTION_FORMS[0], "as in the paper; the released code discards it"),
    }


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
        assumed=_assumed,
        paper="arXiv 2409.06206",
        derived=("attn.relative_position_index", "attn_mask", "num_batches_tracked"),
        options={"attention": _set_attention},
        filled=_warn_of_released_code,
    )
)
