"""The cache: engines, prepared files and measured ranges, by all the facts they depend on."""

from .facts import Difference, Facts, differences
from .store import CacheEntry, CacheWarning, EngineCache, default_folder

__all__ = [
    "CacheEntry",
    "CacheWarning",
    "Difference",
    "EngineCache",
    "Facts",
    "default_folder",
    "differences",
]
