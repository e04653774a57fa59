"""The real ``polygraphy``, which finds our entry point as if the package were installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import agileir_export

if sys.version_info >= (3, 11):
    import tomllib
else:
    import pytest

    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
GROUP = "polygraphy.run.plugins"
PROGRAMS = {
    "polygraphy": "import sys; from polygraphy.tools import main; sys.exit(main())",
    "agileir-export": "from agileir_export.cli import main; main()",
}


def entry_points() -> dict[str, str]:
    """What pyproject.toml promises polygraphy."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["entry-points"][GROUP]


def install(folder: Path) -> Path:
    """Puts the metadata of an installed package into a folder: on the module path it makes the entry point known."""
    place = folder / "agileir_export_trial-0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: agileir-export-trial\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in entry_points().items()]
    (place / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    programs = folder / "bin"
    programs.mkdir()
    for name, code in PROGRAMS.items():
        program = programs / name
        program.write_text(f"#!{sys.executable}\n{code}\n")
        program.chmod(0o755)
    return folder


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Variables of a shell in which the package is installed."""
    modules = [str(folder), str(Path(agileir_export.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, modules)),
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def shell(folder: Path, script: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script in such a shell; stderr goes to stdout."""
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=cwd,
        env=environment(folder, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
