"""The cache: engines, prepared files, measured ranges and seams, by all the facts they depend on."""

from .facts import NETWORK, Difference, Facts, differences, program_facts
from .store import DRAWERS, ENGINES, PREPARED, RANGES, SEAMS, Cache, CacheEntry, CacheWarning, default_folder

__all__ = [
    "DRAWERS",
    "ENGINES",
    "NETWORK",
    "PREPARED",
    "RANGES",
    "SEAMS",
    "Cache",
    "CacheEntry",
    "CacheWarning",
    "Difference",
    "Facts",
    "default_folder",
    "differences",
    "program_facts",
]
