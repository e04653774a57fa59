"""CONTRIBUTING's guide, followed: an operator is a new folder and a family a new file, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOYS = Path(__file__).parent / "guide"
"""A toy operator, a toy family of it, and what is asked of them."""


def copy_package(target: Path) -> None:
    """The package without packaged weights and pictures, and without what lies beside it."""
    nothing_but_code = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.md", "samples")
    target.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, target)
        elif (path / "__init__.py").exists():
            shutil.copytree(path, target / path.name, ignore=nothing_but_code)


def test_an_operator_and_a_family_are_added_by_their_own_files(tmp_path: Path) -> None:
    package = tmp_path / "agileir_export"
    copy_package(package)
    operator = package / "plugins" / "window_centre"
    shutil.copytree(TOYS / operator.name, operator, ignore=shutil.ignore_patterns("__pycache__"))
    (operator / "entry.py").rename(operator / "__init__.py")  # under its own name, the tests would be a package
    shutil.copy(TOYS / "centred.py", package / "models")
    walked = subprocess.run(
        [sys.executable, TOYS / "walk.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert walked.stdout.endswith("done"), walked.stderr
