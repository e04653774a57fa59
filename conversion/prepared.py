"""ONNX artifacts made on the way from a model to an engine, kept: the same engine then needs no second export."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from ..cache import PREPARED, Cache, Facts, program_facts
from ..export.artifact import OnnxArtifact, artifact_of, parse_onnx
from ..models.options import LoadOptions

__all__ = ["PreparedFiles", "source_facts"]


def source_facts(source: str, options: LoadOptions, request: Any) -> Facts:
    """All that the artifact made from a model depends on: weights, options, program, libraries.

    Files count by their bytes, whatever they are named. Nothing heavy is imported.

    Args:
        source: Preset, packaged model or checkpoint.
        options: How to load it.
        request: What the artifact is to be, a dataclass.
    """
    return {
        "network": Path(source).name,
        "source": _content(Path(source)) if Path(source).is_file() else source,
        "options": _content(options.given()),
        "request": _content(dataclasses.asdict(request)),
        **program_facts(),
    }


def _content(value: Any) -> Any:
    """A value as JSON; a path by the digest of its file, or of all files in its folder."""
    if isinstance(value, dict):
        return {name: _content(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_content(entry) for entry in value]
    if not isinstance(value, Path):
        return value
    if value.is_dir():
        return [_content(path) for path in sorted(value.rglob("*")) if path.is_file()]
    return hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else str(value)


class PreparedFiles:
    """Prepared artifacts by the facts they depend on, beside the built engines.

    Args:
        folder: Where they lie; unless given, a drawer of the cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = Cache(folder, PREPARED)

    def fetch(self, facts: Facts) -> OnnxArtifact | None:
        """The artifact with exactly these facts; None if there is none."""
        entry = self._files.find(facts)
        if entry is None:
            return None
        try:
            data = entry.content.read_bytes()
        except FileNotFoundError:  # cleared meanwhile
            return None
        return artifact_of(parse_onnx(data, entry.content))

    def keep(self, facts: Facts, artifact: OnnxArtifact) -> None:
        """Stores an artifact; where the cache cannot be written to, there is a warning and nothing more."""
        self._files.store(facts, artifact.data, {"name": artifact.file_name})
