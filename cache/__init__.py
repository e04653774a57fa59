"""The cache: engines, prepared files and measured ranges, by all the facts they depend on."""

from .facts import Difference, Facts, differences, program_facts
from .store import DRAWERS, ENGINES, PREPARED, RANGES, Cache, CacheEntry, CacheWarning, default_folder

__all__ = [
    "DRAWERS",
    "ENGINES",
    "PREPARED",
    "RANGES",
    "Cache",
    "CacheEntry",
    "CacheWarning",
    "Difference",
    "Facts",
    "default_folder",
    "differences",
    "program_facts",
]
