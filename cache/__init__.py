"""The cache: what was built, prepared or measured once, by all the facts it depends on."""

from .facts import NETWORK, Difference, Facts, differences, installed_version, processor_name, program_facts
from .store import (
    DRAWERS,
    ENGINES,
    MEMORY,
    NAMES,
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
    "NAMES",
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
