"""Descriptions of plans that nobody reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agileir_export.engines.artifact import EngineArtifact, sidecar_path
from agileir_export.models.spec import ModelSpec


def describe(path: Path, spec: ModelSpec, content: bytes | None = None, **changes: Any) -> EngineArtifact:
    """A plan with the sidecar that a build would write; without `content` the plan is there already."""
    if content is not None:
        path.write_bytes(content)
    known = {"target": "tensorrt", "precision": "float16", "profiles": (), "gpus": ("sm86",)}
    known |= {name: {} for name in ("facts", "audit", "provenance", "build")}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    artifact = EngineArtifact(path=path, sha256=sha256, spec=spec, **{**known, **changes})
    sidecar_path(path).write_text(json.dumps(artifact.to_json()), encoding="utf-8")
    return artifact
