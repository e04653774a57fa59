"""Reading hyper-parameters of SwinIR-shaped networks off the keys and shapes of a state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .layers import UPS

__all__ = ["BLOCK", "UNKNOWN_TASK", "columnar_hyperparameters", "count_children", "window_from_table"]

UNKNOWN_TASK = "restoration"
"""Of a network that keeps the size and shows no more of what it is for."""

BLOCK = "layers.0.residual_group.blocks.0"


def count_children(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of consecutively numbered children ``prefix.0``, ``prefix.1``, ... in a state dict.

    Raises:
        KeyError: A number is missing before the last.
    """
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    numbers = {int(match[1]) for key in state if (match := pattern.match(key))}
    for number in range(len(numbers)):
        if number not in numbers:
            raise KeyError(f"{prefix}.{number}")
    return len(numbers)


def window_from_table(table: Tensor) -> int:
    """Window size w of a bias table with ``(2w-1)^2`` rows.

    Raises:
        ValueError: The number of rows is not the square of an odd number.
    """
    side = round(table.shape[0] ** 0.5)
    if side * side != table.shape[0] or side % 2 == 0:
        raise ValueError(f"a bias table has (2w-1)^2 rows, got {table.shape[0]}")
    return int(side + 1) // 2


def columnar_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What all columnar families have in common: width, depths, MLP ratio, head, scale, channels, task.

    Raises:
        KeyError: A key that every such network has is missing.
        ValueError: A shape fits no such network.
    """
    embed_dim, channels = state["conv_first.weight"].shape[:2]
    stages = count_children(state, "layers")
    hidden = state[f"{BLOCK}.mlp.fc1.weight"].shape[0]
    found: dict[str, Any] = {
        "embed_dim": embed_dim,
        "channels": channels,
        "depths": tuple(count_children(state, f"layers.{i}.residual_group.blocks") for i in range(stages)),
        "mlp_ratio": hidden / embed_dim,
        "resi_connection": "3conv"
        if any(key.startswith(("conv_after_body.0.", "layers.0.conv.0.")) for key in state)
        else "1conv",
    }
    found.update(_head(state, channels))
    return found


def _head(state: Mapping[str, Tensor], channels: int) -> dict[str, Any]:
    """Up-sampler, scale, features and task."""
    if "conv_before_upsample.0.weight" in state:
        features = state["conv_before_upsample.0.weight"].shape[0]
        if "conv_up1.weight" in state:
            scale = 2 ** sum(f"{name}.weight" in state for name in UPS)
            return {"upsampler": "nearest+conv", "scale": scale, "num_feat": features}
        scale, index = 1, 0
        while (key := f"upsample.{index}.weight") in state:
            scale *= round((state[key].shape[0] / features) ** 0.5)
            index += 2  # a pixel shuffle, without weights, is in between
        task = {"task": UNKNOWN_TASK} if scale == 1 else {}
        return {"upsampler": "pixelshuffle", "scale": scale, "num_feat": features, **task}
    if any(key.startswith("upsample.") for key in state):
        scale = round((state["upsample.0.weight"].shape[0] / channels) ** 0.5)
        return {"upsampler": "pixelshuffledirect", "scale": scale}
    if "conv_last.weight" not in state:
        raise KeyError("conv_last.weight")
    return {"upsampler": "", "scale": 1, "task": "denoising"}
