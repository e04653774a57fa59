"""Models: families, presets, checkpoints, packaged weights.

What `spec` and `options` hold is there at once; all else imports PyTorch on first use, and every module of this room
then, so that the families among them are registered.
"""

import pkgutil
from typing import TYPE_CHECKING

from ..lazy import lazy_attributes
from .options import LoadOptions
from .spec import CHECKPOINT_SUFFIXES, ModelSpec

if TYPE_CHECKING:
    from .agileir import ReleasedCodeWarning
    from .base import Restorer, pad_images
    from .checkpoint import list_models, load_model, packaged_models, read_state
    from .registry import FAMILIES, Family, build_preset, find_preset, preset_names, register
    from .semanir import set_top_k
    from .transform import fold, randomise, use_operators

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "FAMILIES",
    "Family",
    "LoadOptions",
    "ModelSpec",
    "ReleasedCodeWarning",
    "Restorer",
    "build_preset",
    "find_preset",
    "fold",
    "list_models",
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

_HOMES = {
    **dict.fromkeys(("Restorer", "pad_images"), ".base"),
    "ReleasedCodeWarning": ".agileir",
    **dict.fromkeys(("list_models", "load_model", "packaged_models", "read_state"), ".checkpoint"),
    **dict.fromkeys(
        ("FAMILIES", "Family", "build_preset", "find_preset", "preset_names", "register"),
        ".registry",
    ),
    "set_top_k": ".semanir",
    **dict.fromkeys(("fold", "randomise", "use_operators"), ".transform"),
}

__getattr__ = lazy_attributes(
    __name__, _HOMES, prepare=tuple(f".{module.name}" for module in pkgutil.iter_modules(__path__))
)
