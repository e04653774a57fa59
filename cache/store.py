"""The cache: what was built, prepared or measured once is not built, prepared or measured again.

An entry is a folder named after the digest of *all* facts it depends on. It is written beside its place and
renamed into it: so it is whole or absent, whatever happens to the process or the machine, and two processes that store
the same thing cannot mix their files. What is found to be damaged is removed. A cache that cannot be written to costs
time and a warning, never a build.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from .entry import CONTENT, DESCRIPTION, VERSION, CacheEntry, damage, read_entry, synchronise, write_through
from .facts import Difference, Facts, differences, facts_key, likeness

__all__ = [
    "DRAWERS",
    "ENGINES",
    "MEMORY",
    "NAMES",
    "PREPARED",
    "RANGES",
    "RUNTIMES",
    "SEAMS",
    "Cache",
    "CacheEntry",
    "CacheWarning",
    "default_folder",
]

ENVIRONMENT_VARIABLE = "AGILEIR_EXPORT_CACHE"

ENGINES, PREPARED, RANGES, SEAMS, MEMORY, RUNTIMES = "engines", "sources", "ranges", "seams", "memory", "runtimes"
NAMES = "names"
DRAWERS = (ENGINES, PREPARED, RANGES, SEAMS, MEMORY, RUNTIMES, NAMES)
"""Built engines; ONNX files made from models on the way to one; what calibration measured on pictures; how well tiles
fit together; how much memory runners take; how runtimes compare; names that the shell completes."""

TEMPORARY = ".unfinished-"
LOCKS = ".locks"

STALE_SECONDS = 3600.0
"""Age from which an unfinished entry belongs to a process that was killed: writing one takes seconds."""


class CacheWarning(UserWarning):
    """The cache could not be used as it should; the build goes on without it."""


def default_folder(drawer: str = ENGINES) -> Path:
    """A drawer in ``$AGILEIR_EXPORT_CACHE``, else in ``agileir-export`` in the user's cache folder."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / drawer
    base = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(base) if base and Path(base).is_absolute() else Path("~/.cache").expanduser()
    return caches / "agileir-export" / drawer


class Cache:
    """Things of one kind by the facts they depend on.

    Args:
        folder: Where they lie; `default_folder` unless given. It is made when something is stored.
        drawer: One of `DRAWERS`, where no folder is given.
    """

    def __init__(self, folder: Path | None = None, drawer: str = ENGINES) -> None:
        self.folder = folder or default_folder(drawer)

    def find(self, facts: Facts) -> CacheEntry | None:
        """The entry with exactly these facts, its checksum verified; None if there is none.

        A damaged entry is removed, with a `CacheWarning`.
        """
        place = self.folder / facts_key(facts)
        if place not in self._places():
            return None
        entry, problem = read_entry(place)
        if entry is not None:
            problem = damage(entry)
        if not problem:
            with contextlib.suppress(OSError):  # a cache that can only be read, or cleared meanwhile
                os.utime(place)
            return entry
        if place not in self._places():  # another process removed it between two steps
            return None
        warnings.warn(f"The cached {place} is damaged ({problem}); it is made again.", CacheWarning, stacklevel=2)
        self._remove(place)
        return None

    def store(self, facts: Facts, content: Path | bytes, details: Mapping[str, Any]) -> CacheEntry | None:
        """Stores something.

        Where another process has stored one of the same facts meanwhile, that one stays.

        Args:
            facts: All that it depends on.
            content: Its bytes, or the file that holds them.
            details: What else is worth keeping, as JSON; ``seconds`` of the build feed `estimate`.

        Returns:
            The entry. None if the cache cannot be written to, with a `CacheWarning`, or if another process has removed
            the entry already.
        """
        key = facts_key(facts)
        place = self.folder / key
        temporary = self.folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            temporary.mkdir(parents=True)
            self._remove_stale()
            sha256, size = write_through(temporary / CONTENT, content)
            description = {
                "version": VERSION,
                "sha256": sha256,
                "size": size,
                "created": time.time(),
                "facts": dict(facts),
                "details": dict(details),
            }
            write_through(temporary / DESCRIPTION, json.dumps(description, indent=1).encode())
            synchronise(temporary)
            self._put(temporary, place)
        except OSError as error:
            warnings.warn(
                f"The result is not cached: {self.folder} cannot be written to ({error.strerror or error}).",
                CacheWarning,
                stacklevel=2,
            )
            return None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return read_entry(place)[0]

    @contextlib.contextmanager
    def lock(self, facts: Facts, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keeps other processes from building the same thing while the block runs.

        The lock is the operating system's: a process that is killed leaves none. Where the cache's folder takes no
        locks, the block runs without one: two builds at once waste time, but harm nothing.

        Args:
            facts: All that it depends on.
            waiting: Called once where another process holds the lock, before waiting for it.
        """
        from filelock import FileLock, Timeout

        path = self.folder / LOCKS / f"{facts_key(facts)}.lock"
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(
                OSError, NotImplementedError
            ):  # `store` warns of a folder that cannot be written to
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path)
                try:
                    stack.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    if waiting is not None:
                        waiting()
                    stack.enter_context(lock.acquire(poll_interval=0.2))
            yield

    def entries(self) -> list[CacheEntry]:
        """All entries, the latest first; their checksums are not verified."""
        found = [entry for place in self._places() if (entry := read_entry(place)[0]) is not None]
        return sorted(found, key=lambda entry: entry.created, reverse=True)

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(entry.size for entry in self.entries())

    def clear(self, keys: Collection[str] | None = None, unused_seconds: float = 0.0) -> int:
        """Removes entries, damaged and unfinished ones too.

        Args:
            keys: Keys of the entries to remove; all unless given.
            unused_seconds: Entries that were stored or found since stay.

        Returns:
            Number of entries that were removed.

        Raises:
            OSError: An entry cannot be removed.
        """
        removed = 0
        for place in self._places():
            if (keys is None or place.name in keys) and _age(place) >= unused_seconds:
                self._remove(place, ignore_errors=False)
                removed += 1
        if keys is None:
            self._remove_stale(age=min(unused_seconds, STALE_SECONDS))
            self._remove_locks()
        return removed

    def nearest(self, facts: Facts) -> CacheEntry | None:
        """The entry most like these facts, and not equal to them.

        Of the same network if there is one; of those the one with the most equal facts; of those the latest.
        """
        key = facts_key(facts)
        others = [entry for entry in self.entries() if entry.key != key]
        return max(others, key=lambda entry: (*likeness(facts, entry.facts), entry.created), default=None)

    def explain(self, facts: Facts) -> list[Difference]:
        """Why an engine is not in the cache: how the nearest entry (first) differs from these facts (second)."""
        nearest = self.nearest(facts)
        return [] if nearest is None else differences(nearest.facts, facts)

    def estimate(self, facts: Facts) -> float | None:
        """Expected seconds of a build: the median of the most similar ones of its network; None if there is none."""
        timed = [
            (likeness(facts, entry.facts), float(seconds))
            for entry in self.entries()
            if isinstance(seconds := entry.details.get("seconds"), int | float)
        ]
        alike = [(equal, seconds) for (same_network, equal), seconds in timed if same_network]
        if not alike:
            return None
        best = max(equal for equal, _ in alike)
        return statistics.median(seconds for equal, seconds in alike if equal == best)

    def _places(self) -> list[Path]:
        """Folders of entries, damaged ones too."""
        try:
            return [place for place in self.folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
        except OSError:
            return []

    def _put(self, temporary: Path, place: Path) -> None:
        """Moves a finished entry into its place, unless a sound one is there."""
        for _ in range(3):  # another process may put a damaged one there, or remove it, between two steps
            try:
                temporary.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
            else:
                synchronise(self.folder)
                return
            entry, _ = read_entry(place)
            if entry is not None and not damage(entry):
                return
            self._remove(place)
        raise OSError(f"{place} is damaged and cannot be replaced")

    def _remove(self, place: Path, ignore_errors: bool = True) -> None:
        """Removes an entry so that nobody sees half of it."""
        aside = self.folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            place.rename(aside)
        except FileNotFoundError:  # another process removed it
            return
        except OSError:
            if not ignore_errors:
                raise
            return
        shutil.rmtree(aside, ignore_errors=ignore_errors)

    def _remove_locks(self) -> None:
        """Removes the files of locks that nobody holds."""
        from filelock import FileLock

        for path in (self.folder / LOCKS).glob("*.lock"):
            with contextlib.suppress(OSError, NotImplementedError), FileLock(path).acquire(timeout=0):
                path.unlink(missing_ok=True)

    def _remove_stale(self, age: float = STALE_SECONDS) -> None:
        """Removes what killed processes left behind."""
        for leftover in self.folder.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if _age(leftover) >= age:
                    shutil.rmtree(leftover)


def _age(place: Path) -> float:
    """Seconds since a folder was written to or touched; infinite where it is gone."""
    try:
        return time.time() - place.stat().st_mtime
    except FileNotFoundError:
        return math.inf
