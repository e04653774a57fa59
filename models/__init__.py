"""Models: the three families, presets, checkpoints, packaged weights."""

from . import agileir, semanir_unet, swinir
from .base import Restorer, pad_images
from .checkpoint import (
    CHECKPOINT_SUFFIXES,
    ReleasedCodeWarning,
    load_model,
    packaged_models,
    read_state,
)
from .registry import FAMILIES, Family, build_preset, find_preset, preset_names, register
from .semanir import set_top_k
from .spec import ModelSpec
from .transform import fold, randomise, use_operators

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "FAMILIES",
    "Family",
    "ModelSpec",
    "ReleasedCodeWarning",
    "Restorer",
    "build_preset",
    "find_preset",
    "fold",
    "load_model",
    "packaged_models",
    "pad_images",
    "preset_names",
    "randomise",
    "read_state",
    "register",
    "set_top_k",
    "use_operators",
]
