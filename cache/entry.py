"""An entry of the cache on the disk: a folder with its content, and a description with the content's checksum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..json_form import JsonForm, parse_json
from .facts import Facts, facts_key

__all__ = ["CONTENT", "DESCRIPTION", "VERSION", "CacheEntry", "damage", "read_entry", "synchronise", "write_through"]

CONTENT, DESCRIPTION = "content", "entry.json"

VERSION = 2
"""Version of the description's form."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class CacheEntry(JsonForm):
    """Something that is kept: an engine, a prepared file, what was measured on a picture.

    Attributes:
        key: Digest of its facts.
        content: File with its bytes.
        sha256: Digest of the content.
        size: Bytes of the content.
        created: When it was stored, in seconds since 1970.
        facts: All that it depends on.
        details: What else is known of it; of an engine its audit, the ``seconds`` it took to build, peak memory.
    """

    key: str
    content: Path
    sha256: str
    size: int
    created: float
    facts: Facts
    details: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        told = super().to_json()
        return told | {"plan": told.pop("content")}


def read_entry(place: Path) -> tuple[CacheEntry | None, str]:
    """An entry by its folder; or None and what is wrong with it. The content's checksum is not verified."""
    try:
        data = parse_json((place / DESCRIPTION).read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            return None, f"version {data['version']} of its form, {VERSION} expected"
        entry = CacheEntry(
            key=place.name,
            content=place / CONTENT,
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
    """What is wrong with an entry's content; empty if nothing."""
    try:
        size = entry.content.stat().st_size
        if size != entry.size:
            return f"{size} bytes, {entry.size} expected"
        digest = hashlib.sha256()
        for chunk in _chunks(entry.content):
            digest.update(chunk)
    except OSError as error:
        return f"its content cannot be read: {error.strerror or error}"
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
