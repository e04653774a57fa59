"""Where a Triton Inference Server is on this machine, and what belongs to it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ..errors import EnvironmentProblem, InputError

__all__ = ["STUB", "Installation", "find_server"]

CONTAINER = Path("/opt/tritonserver/bin/tritonserver")
"""Where NVIDIA's container has it."""

STUB = "triton_python_backend_stub"
"""The program that runs a model of the Python backend: one for every version of Python."""

INSTALL_BESIDE = "pip install --no-deps 'nvidia-pytriton>=0.7' (Linux, Python up to 3.13)"
INSTALL = "pip install 'agileir-export[serve]'" if sys.version_info < (3, 13) else INSTALL_BESIDE
"""The extra has the wheel whose wishes this package can meet; it is for Linux x86-64 and Python up to 3.12."""


@dataclass(frozen=True)
class Installation:
    """A server.

    Attributes:
        program: ``tritonserver``.
        backends: The folder with a folder for each of its backends.
        stub: The Python backend's program for this version of Python.
        libraries: Folders where program and stub find shared libraries.
    """

    program: Path
    backends: Path
    stub: Path
    libraries: tuple[Path, ...] = ()

    def has(self, backend: str) -> bool:
        """Whether it has a backend: ``python``, ``onnxruntime``, ``tensorrt``."""
        return any((self.backends / backend).glob("libtriton_*.so"))

    def environment(self) -> dict[str, str]:
        """Variables for the server: it finds its libraries, and the Python backend this Python with its packages."""
        places = [*map(str, self.libraries), *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(places), "PATH": path}


def find_server(named: Path | None = None) -> Installation:
    """The server that is named, on the PATH, in the place of NVIDIA's container, or in PyPI's nvidia-pytriton.

    Args:
        named: The program, or None.

    Raises:
        InputError: What is named is no program.
        EnvironmentProblem: There is none; or it does not run models with this Python.
    """
    if named is not None and not (named.is_file() and os.access(named, os.X_OK)):
        raise InputError(f"{named} is no program.", fix="Name the file tritonserver.")
    on_path = shutil.which("tritonserver")
    for program in (named, on_path and Path(on_path), CONTAINER):
        if program and program.is_file():
            return _complete(program.resolve())
    spec = importlib.util.find_spec("pytriton")  # the wheel is not imported
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (program := Path(folder, "tritonserver/bin/tritonserver")).is_file():
            return _complete(program)
    raise EnvironmentProblem(
        "There is no Triton Inference Server here.",
        why=f"Looked for: tritonserver on the PATH, {CONTAINER}, the package nvidia-pytriton.",
        fix=f"{INSTALL}, or use NVIDIA's container: see docs/serving.md.",
    )


def _complete(program: Path) -> Installation:
    """The server of a program, with the Python backend's program for this Python and all folders of libraries.

    Raises:
        EnvironmentProblem: It has no Python backend, or none that starts with this Python.
    """
    place = program.parent.parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheel = place / "python_backend_stubs"  # of nvidia-pytriton: one for every version
    stub = (wheel / version if wheel.is_dir() else place / "backends/python") / STUB
    libraries = place.parent.parent / "nvidia_pytriton.libs"
    found = Installation(program, place / "backends", stub, (libraries,) if libraries.is_dir() else ())
    if not found.has("python") or not (wheel.is_dir() or stub.is_file()):
        raise EnvironmentProblem(
            f"{program} has no Python backend, which pictures need: looked for in {found.backends / 'python'}.",
            fix=f"Use a server with it: NVIDIA's container has all, or {INSTALL}.",
        )
    if not stub.is_file():
        known = ", ".join(sorted((path.parent.name for path in wheel.glob(f"*/{STUB}")), key=_numbers))
        raise EnvironmentProblem(
            f"{program} runs models with Python {known}, and this is Python {version}.",
            fix=f"Use such a Python, or: {INSTALL_BESIDE}.",
        )
    made_for = re.search(rb"libpython(\d\.\d+)\.so", found.stub.read_bytes())
    if made_for is not None and made_for[1].decode() != version:
        raise EnvironmentProblem(
            f"{found.program} runs models with Python {made_for[1].decode()}, and this is Python {version}.",
            fix="Install agileir-export for that Python, and start it there.",
        )
    own = Path(sysconfig.get_config_var("LIBDIR") or "")
    if (own / f"libpython{version}.so.1.0").is_file():
        found = Installation(found.program, found.backends, found.stub, (*found.libraries, own))
    if missing := _missing_library(found):
        what = f"The Python backend of {found.program} does not start: there is no {missing}."
        if not missing.startswith("libpython"):
            raise EnvironmentProblem(what, fix="Install the library that is missing.")
        raise EnvironmentProblem(
            what,
            why=f"It runs models with Python {version} as a shared library, which this Python was built without.",
            fix=f"Install it (Debian and Ubuntu: apt install libpython{version}), or use a Python that has it, such as "
            "those of Debian, Ubuntu, conda and uv.",
        )
    return found


def _missing_library(found: Installation) -> str:
    """A shared library that the stub does not find; empty where it finds all."""
    try:
        told = subprocess.run(
            ["ldd", found.stub], env=found.environment(), capture_output=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):  # musl has none; loading the model will tell
        return ""
    missing = re.search(r"(\S+) => not found", told)
    return missing[1] if missing else ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]
