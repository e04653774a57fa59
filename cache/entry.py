"""An entry of the engine cache on the disk: a folder with the plan, and a description with the plan's checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .facts import Facts, facts_key

__all__ = ["DESCRIPTION", "PLAN", "VERSION", "CacheEntry", "damage", "read_entry", "synchronise", "write_through"]

PLAN, DESCRIPTION = "engine.plan", "entry.json"

VERSION = 1
"""Version of the description's form."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class CacheEntry:
    """A built engine in the cache.

    Attributes:
        key: Digest of its facts.
        plan: File with the builder's bytes.
        sha256: Digest of the plan.
        size: Bytes of the plan.
        created: When it was stored, in seconds since 1970.
        facts: All that the engine depends on.
        details: What the build found out: audit, ``seconds`` it took, peak memory.
    """

    key: str
    plan: Path
    sha256: str
    size: int
    created: float
    facts: Facts
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        return vars(self) | {"plan": str(self.plan)}


def read_entry(place: Path) -> tuple[CacheEntry | None, str]:
    """An entry by its folder; or None and what is wrong with it. The plan's checksum is not verified."""
    try:
        data = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            return None, f"version {data['version']} of its form, {VERSION} expected"
        entry = CacheEntry(
            key=place.name,
            plan=place / PLAN,
            sha256=str(data["sha256"]),
            size=int(data["size"]),
            created=float(data["created"]),
            facts=dict(data["facts"]),
            details=dict(data["details"]),
        )
        if facts_key(entry.facts) != entry.key:
            return None, "its facts are not those of its name"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"its description cannot be read: {error!r}"
    return entry, ""


def damage(entry: CacheEntry) -> str:
    """What is wrong with an entry's plan; empty if nothing."""
    try:
        size = entry.plan.stat().st_size
        if size != entry.size:
            return f"{size} bytes, {entry.size} expected"
        digest = hashlib.sha256()
        for chunk in _chunks(entry.plan):
            digest.update(chunk)
    except OSError as error:
        return f"its plan cannot be read: {error.strerror or error}"
    return "" if digest.hexdigest() == entry.sha256 else f"sha256 {digest.hexdigest()[:12]}, not {entry.sha256[:12]}"


def write_through(path: Path, content: Path | bytes) -> tuple[str, int]:
    """Writes bytes, or another file's, through to the disk; returns their SHA-256 and number."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        for chunk in _chunks(content):
            target.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest(), size


def _chunks(content: Path | bytes) -> Iterator[bytes]:
    """Bytes, or a file's, piece by piece."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def synchronise(folder: Path) -> None:
    """Writes a folder's names through to the disk, on systems that can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
