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

__all__ = ["Installation", "find_server"]

CONTAINER = Path("/opt/tritonserver/bin/tritonserver")
"""Where NVIDIA's container has it."""

STUB = "triton_python_backend_stub"
"""The program that runs a model of the Python backend: one for every version of Python."""

INSTALL = "pip install 'agileir-export[serve]' (Linux x86-64, Python 3.10 to 3.12)"
INSTALL_BESIDE = "pip install --no-deps 'nvidia-pytriton>=0.7' (Python 3.10 to 3.13)"


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
    for program in (named, on_path and Path(on_path), CONTAINER if CONTAINER.is_file() else None):
        if program:
            backends = program.resolve().parent.parent / "backends"
            return _complete(Installation(program, backends, backends / "python" / STUB))
    return _complete(_wheel())


def _wheel() -> Installation:
    """That of the wheel nvidia-pytriton, which is not imported.

    Raises:
        EnvironmentProblem: It is not installed, or not for this Python.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    spec = importlib.util.find_spec("pytriton")
    folder = Path(*spec.submodule_search_locations) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "tritonserver/bin/tritonserver").is_file():
        raise EnvironmentProblem(
            "There is no Triton Inference Server here.",
            why=f"Looked for: tritonserver on the PATH, {CONTAINER}, the package nvidia-pytriton.",
            fix=f"{INSTALL}; {INSTALL_BESIDE}; or use NVIDIA's container: see docs/serving.md.",
        )
    server = folder / "tritonserver"
    stub = server / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        known = ", ".join(sorted((path.parent.name for path in stub.parent.parent.glob(f"*/{STUB}")), key=_numbers))
        raise EnvironmentProblem(
            f"The Triton server in {folder} runs models with Python {known}, and this is Python {version}.",
            fix=f"Use one of these, or: {INSTALL_BESIDE}.",
        )
    return Installation(
        server / "bin/tritonserver", server / "backends", stub, (folder.parent / "nvidia_pytriton.libs",)
    )


def _complete(found: Installation) -> Installation:
    """The server with all folders of libraries.

    Raises:
        EnvironmentProblem: It has no Python backend, or one that does not start with this Python.
    """
    if not found.has("python") or not found.stub.is_file():
        raise EnvironmentProblem(
            f"{found.program} has no Python backend, which pictures need: looked for in {found.backends / 'python'}.",
            fix="Use a server with it: NVIDIA's container has all, or " + INSTALL + ".",
        )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
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
