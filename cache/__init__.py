"""The cache: engines, prepared files, measured ranges, seams and memory, by all the facts they depend on."""

from .facts import NETWORK, Difference, Facts, differences, program_facts
from .store import DRAWERS, ENGINES, MEMORY, PREPARED, RANGES, SEAMS, Cache, CacheEntry, CacheWarning, default_folder

__all__ = [
    "DRAWERS",
    "ENGINES",
    "MEMORY",
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
