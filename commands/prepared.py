"""ONNX files made on the way from a model to an engine, kept: the same engine then needs no second export."""

from __future__ import annotations

import dataclasses
import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..cache.facts import Facts
    from ..export import OnnxArtifact
    from ..models import LoadOptions

__all__ = ["PreparedFiles", "source_facts"]

ROOMS = ("calib", "commands", "engines", "export", "models", "parity", "plugins")
LIBRARIES = ("numpy", "onnx", "onnx-graphsurgeon", "onnx-ir", "onnxruntime", "onnxscript", "torch")
FOLDER = "sources"


def source_facts(source: str, options: LoadOptions, wanted: Any) -> Facts:
    """All that the file made from a model depends on: weights, options, program, libraries.

    Files count by their bytes, whatever they are named. Nothing heavy is imported.

    Args:
        source: Preset, packaged model or checkpoint.
        options: How to load it.
        wanted: What the file shall be, a dataclass.
    """
    from ..cache.facts import code_digest

    return {
        "network": Path(source).name,
        "source": _content(Path(source)) if Path(source).is_file() else source,
        "options": _content(options.given()),
        "wanted": _content(dataclasses.asdict(wanted)),
        "code": code_digest(*ROOMS),
        "weights": {file.name: _content(file) for file in _packaged()},
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
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


def _packaged() -> list[Path]:
    """Packaged weights, looked for without loading the networks they belong to."""
    return sorted((Path(__file__).parents[1] / "models" / "weights").glob("*.safetensors"))


class PreparedFiles:
    """Prepared files by the facts they depend on, beside the built engines.

    Args:
        folder: Where they lie; unless given, ``sources`` in the cache's folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from ..cache.store import EngineCache, default_folder

        self._files = EngineCache(folder or default_folder().with_name(FOLDER))

    def fetch(self, facts: Facts, folder: Path) -> OnnxArtifact | None:
        """A copy of the file with exactly these facts; None if there is none.

        Args:
            facts: See `source_facts`.
            folder: Where the copy goes.
        """
        from ..export import read_artifact
        from ..files import write_atomic

        entry = self._files.find(facts)
        if entry is None:
            return None
        path = folder / str(entry.details["name"])
        try:
            write_atomic(path, entry.plan.read_bytes(), overwrite=True)
        except FileNotFoundError:  # cleared meanwhile
            return None
        return read_artifact(path)

    def keep(self, facts: Facts, artifact: OnnxArtifact) -> None:
        """Stores a file; where the cache cannot be written to, there is a warning and nothing more."""
        self._files.store(facts, artifact.path, {"name": artifact.path.name})

    def clear(self, unused_seconds: float = 0.0) -> int:
        """Removes all files that were not stored or fetched within these seconds; returns their number."""
        return self._files.clear(unused_seconds=unused_seconds)
