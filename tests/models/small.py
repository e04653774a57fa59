"""Networks of every family with as few numbers as still show every part of them."""

from __future__ import annotations

from typing import Any

from agileir_export.models import FAMILIES, Restorer, randomise

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "agileir": {
        "family": "agileir",
        "embed_dim": 12,
        "depths": (2, 1),
        "num_heads": (3, 2),
        "key_dims": (4, 6),
        "window_size": 4,
        "scale": 2,
    },
    "agileir-bias": {
        "family": "agileir",
        "embed_dim": 12,
        "depths": (2,),
        "num_heads": (3,),
        "key_dims": (4,),
        "window_size": 4,
        "scale": 3,
        "batch_norm": False,
    },
    "swinir": {
        "family": "swinir",
        "embed_dim": 12,
        "depths": (2, 1),
        "num_heads": (3, 2),
        "window_size": 4,
        "scale": 2,
        "upsampler": "pixelshuffle",
        "num_feat": 8,
    },
    "swinir-real": {
        "family": "swinir",
        "embed_dim": 12,
        "depths": (2,),
        "num_heads": (2,),
        "window_size": 4,
        "scale": 4,
        "upsampler": "nearest+conv",
        "resi_connection": "3conv",
        "num_feat": 8,
    },
    "swinir-jpeg": {
        "family": "swinir",
        "embed_dim": 12,
        "depths": (2,),
        "num_heads": (2,),
        "window_size": 7,
        "scale": 1,
        "upsampler": "",
        "img_range": 255.0,
        "channels": 1,
        "task": "jpeg",
    },
    "semanir": {
        "family": "semanir",
        "embed_dim": 12,
        "depths": (2, 2),
        "num_heads": 2,
        "window_size": 4,
        "top_k": 5,
        "scale": 2,
        "num_feat": 8,
    },
    "semanir-unet": {
        "family": "semanir",
        "embed_dim": 8,
        "depths": (2, 1, 1),
        "final_depth": 1,
        "head_dim": 4,
        "window_size": 4,
        "top_k": 5,
        "channels": 1,
    },
}


def build(kind: str, seed: int | None = 0, **changes: Any) -> Restorer:
    """A network in evaluation mode, with random weights unless the seed is None."""
    hyperparameters = {**HYPERPARAMETERS[kind], **changes}
    network = FAMILIES[hyperparameters.pop("family")].build(**hyperparameters)
    if seed is not None:
        randomise(network, seed)
    return network.eval()
