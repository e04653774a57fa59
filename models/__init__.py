"""Models: the three families, presets, checkpoints, packaged weights."""

from . import agileir, semanir_unet, swinir
from .base import Restorer, pad_images
from .registry import FAMILIES, Family, build_preset, find_preset, preset_names, register
from .semanir import set_top_k
from .spec import ModelSpec
from .transform import fold, randomise, use_operators

__all__ = [
    "FAMILIES",
    "Family",
    "ModelSpec",
    "Restorer",
    "build_preset",
    "find_preset",
    "fold",
    "pad_images",
    "preset_names",
    "randomise",
    "register",
    "set_top_k",
    "use_operators",
]
