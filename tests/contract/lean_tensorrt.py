"""Makes an environment in which the real TensorRT bindings run on a machine without TensorRT and without a GPU.

Two public wheels are enough: the Python bindings and the lean runtime, about 45 MB together. The bindings ask for
three libraries of the full product, of which they need a handful of symbols to be imported; small stand-ins give
those. Plugins can then be registered, created and asked everything that a build asks them. There is no builder.

As a program: ``python lean_tensorrt.py 11.4.0.106`` makes the environment and prints the variables to set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STAND_INS = {
    "libnvonnxparser": """
        #include <stdint.h>
        void *createNvOnnxParser_INTERNAL(void *network, void *logger, int32_t version) { return 0; }
        void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int32_t version) { return 0; }
        int32_t getNvOnnxParserVersion(void) { return 0; }
    """,
    "libnvinfer_plugin": """
        #include <stdbool.h>
        bool initLibNvInferPlugins(void *logger, const char *space) { return true; }
    """,
    "libnvinfer": """
        #include <stdint.h>
        void *createInferBuilder_INTERNAL(void *logger, int32_t version) { return 0; }
        void *getBuilderPluginRegistry(int32_t capability) { return 0; }
    """,
}
"""Library -> the functions the bindings look for in it; everything else is in the lean runtime."""


OLDEST, MIDDLE, NEWEST = "10.12.0.36", "10.16.1.11", "11.4.0.106"
OPERATORS = ["GroupShiftedWindowAttention", "KeySemanticAttention", "KeySemanticDictionary", "ShiftedWindowAttention"]
HALF_BLOCKS = ["HalfBlockNorm", "HalfBlockNormProjection", "HalfBlockTokenTail", "HalfBlockWindowAttention"]
VERSIONS = (NEWEST, MIDDLE, OLDEST)
"""Releases of the bindings that the tests run under: the ends of what quick plugins support, and one between."""

EARLY = "10.4.0"
"""The first release whose plugins in Python live."""

RUNTIMES = {OLDEST: "10.15.1.29", EARLY: "10.15.1.29"}
"""Bindings whose own lean runtime is no wheel -> the runtime of the same major version they are run with."""


class CannotMake(Exception):
    """The environment cannot be made here: no compiler, or the wheels cannot be had."""


@dataclass(frozen=True)
class LeanTensorRT:
    """An environment: a folder of Python packages and a folder of libraries."""

    site: Path
    libraries: Path

    def variables(self, *more_paths: str) -> dict[str, str]:
        """The environment of a process that is to import this TensorRT."""
        found = os.environ.get("LD_LIBRARY_PATH", "")
        libraries = f"{self.libraries}:{found}" if found else str(self.libraries)
        return dict(os.environ) | {
            "LD_LIBRARY_PATH": libraries,
            "PYTHONPATH": os.pathsep.join([str(self.site), *more_paths]),
        }


def answer(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """What a program beside this file says, as JSON in its last line; it finds the package as these tests do."""
    import agileir_export

    variables = dict(os.environ if environment is None else environment)
    package = str(Path(agileir_export.__file__).parents[1])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (variables.get("PYTHONPATH"), package)))
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def cache_folder() -> Path:
    """Where environments are kept between runs: outside of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base, "agileir-export-tests", f"python{sys.version_info[0]}.{sys.version_info[1]}")


def run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotMake(f"{command[0]}: {error}") from error
    if done.returncode:
        raise CannotMake(f"{' '.join(command[:4])} ...: {done.stderr.strip().splitlines()[-1:]}")


def make(version: str) -> LeanTensorRT:
    """Makes the environment of a TensorRT version, or finds it in the cache.

    Args:
        version: Of the bindings, such as ``"11.4.0.106"``.

    Raises:
        CannotMake: With the reason.
    """
    major = version.split(".")[0]
    cuda = "cu12" if major == "10" else "cu13"
    home = cache_folder() / f"tensorrt-{version}-{cuda}"
    made = LeanTensorRT(home / "site", home / "lib")
    if home.is_dir():
        return made
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotMake("a C compiler is needed")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        draft = Path(scratch, "draft")
        _download(version, cuda, draft, Path(scratch))
        _stand_ins(compiler, major, draft)
        try:
            draft.rename(home)
        except OSError as error:
            if not home.is_dir():  # otherwise another process was faster
                raise CannotMake(str(error)) from error
    return made


def make_or_skip(version: str) -> LeanTensorRT:
    """As `make`; a test that calls it is skipped, with the reason, where the environment cannot be made."""
    try:
        return make(version)
    except CannotMake as reason:
        pytest.skip(f"no lean TensorRT {version}: {reason}")


def _download(version: str, cuda: str, draft: Path, scratch: Path) -> None:
    runtime = RUNTIMES.get(version, version)
    wheels = [f"tensorrt_{cuda}_bindings=={version}", f"tensorrt_lean_{cuda}_libs=={runtime}"]
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), *wheels)
    site = draft / "site"
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    front = site / "tensorrt"
    front.mkdir()
    text = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    (front / "__init__.py").write_text(text)
    if (plugin := site / "tensorrt_bindings" / "plugin").is_dir():  # since 10.6
        shutil.copytree(plugin, front / "plugin")


def _stand_ins(compiler: str, major: str, draft: Path) -> None:
    libraries = draft / "lib"
    libraries.mkdir()
    runtime = f"libnvinfer_lean.so.{major}"
    (libraries / runtime).symlink_to(Path("..", "site", "tensorrt_lean_libs", runtime))
    for name, code in STAND_INS.items():
        soname = f"{name}.so.{major}"
        source = draft / f"{name}.c"
        source.write_text(code)
        command = [compiler, "-shared", "-fPIC", "-w", "-o", str(libraries / soname), str(source)]
        command.append(f"-Wl,-soname,{soname}")
        if name == "libnvinfer":
            command += ["-Wl,--no-as-needed", f"-L{libraries}", f"-l:{runtime}", "-Wl,-rpath,$ORIGIN"]
        run(*command)


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else NEWEST
    try:
        environment = make(wanted)
    except CannotMake as reason:
        sys.exit(f"cannot make the environment: {reason}")
    print(f"LD_LIBRARY_PATH={environment.libraries} PYTHONPATH={environment.site}")
