"""Loads something that is no plan with a real target's module, without a GPU; prints the error as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from agileir_export.engines.artifact import EngineArtifact
from agileir_export.engines.tensorrt.plan_loading import deserialize
from agileir_export.errors import AgileIRError
from agileir_export.models.spec import ModelSpec


class NoMemory:
    def describe(self) -> dict[str, Any]:
        return {"memory": "none", "device": "no GPU", "compute_capability": "0.0"}


def main(module: str, target: str, path: str) -> None:
    spec = ModelSpec("swinir", "custom", "super-resolution", 2, 3, 4, 4)
    artifact = EngineArtifact(Path(path), "", target, "float16", (), ("sm89",), spec, {}, {}, {}, {})
    memory: Any = NoMemory()
    try:
        deserialize(importlib.import_module(module), artifact, memory)
    except AgileIRError as error:
        print(json.dumps({"type": type(error).__name__, **error.to_json()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
