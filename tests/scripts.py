"""Scripts of the repository, which are no part of the package, as modules and in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import agileir_export


def load_script(path: Path) -> ModuleType:
    """Runs a script as a module of its own name; what its ``if __name__ == "__main__"`` guards is left out.

    It imports those beside it, as it does when it is started.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses, and processes started from it, look it up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def run_python(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What another Python does, which finds the package that is tested; `variables` are of its environment."""
    package = str(Path(agileir_export.__file__).parents[1])
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": search, **variables}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment)
