"""The cache: engines, prepared files, measured ranges, seams, memory and runtimes, by all the facts they depend on."""

from .facts import NETWORK, Difference, Facts, differences, installed_version, processor_name, program_facts
from .store import (
    DRAWERS,
    ENGINES,
    MEMORY,
    PREPARED,
    RANGES,
    RUNTIMES,
    SEAMS,
    Cache,
    CacheEntry,
    CacheWarning,
    default_folder,
)

__all__ = [
    "DRAWERS",
    "ENGINES",
    "MEMORY",
    "NETWORK",
    "PREPARED",
    "RANGES",
    "RUNTIMES",
    "SEAMS",
    "Cache",
    "CacheEntry",
    "CacheWarning",
    "Difference",
    "Facts",
    "default_folder",
    "differences",
    "installed_version",
    "processor_name",
    "program_facts",
]
