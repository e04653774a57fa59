"""Scripts of the repository, which are no part of the package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_script(path: Path) -> ModuleType:
    """Runs a script as a module of its own name; what its ``if __name__ == "__main__"`` guards is left out."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses, and processes started from it, look it up
    spec.loader.exec_module(module)
    return module
