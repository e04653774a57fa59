"""What is installed, which GPU is here, and which targets can work on this machine.

The examination is static: it reads package metadata and asks the driver, and imports no framework but OpenVINO, where
that is installed, to ask for its devices: so it answers in about a second, and on a broken installation too. A target
`works` when everything it needs was found; nothing is built or run to prove it.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from ..cache.facts import installed_version
from ..errors import EnvironmentProblem
from ..version import RTX_INSTALL, TENSORRT_INSTALL, TENSORRT_RELEASES
from .cuda_driver import Gpu, probe_gpu
from .openvino.loading import INSTALL, devices

__all__ = [
    "CHECKS",
    "Component",
    "Diagnosis",
    "Problem",
    "Surroundings",
    "TargetVerdict",
    "diagnose",
]

_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "agileir-export": ("agileir-export",),
    "torch": ("torch",),
    "numpy": ("numpy",),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml"),
    "openvino": ("openvino",),
    "onnx-graphsurgeon": ("onnx-graphsurgeon",),
    "polygraphy": ("polygraphy",),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt"),
    "tensorrt-rtx bindings": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
    "tensorrt-rtx libraries": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu12-libs"),
    "triton": ("triton",),
    "cuda-bindings": ("cuda-bindings",),
    "pycuda": ("pycuda",),
    "spandrel": ("spandrel",),
    "torchvision": ("torchvision",),
}
"""Component -> the distributions that may provide it, the preferred one first."""

_RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""What TensorRT-RTX 1.7 can target: the members of its `ComputeCapability` enumeration."""

_TENSORRT_MINIMUM = (7, 5)
"""Lowest compute capability of every release in `TENSORRT_RELEASES` (their support matrices)."""


@dataclass(frozen=True)
class Component:
    """A Python package and what provides it; both strings are empty where it is not installed."""

    name: str
    distribution: str = ""
    version: str = ""

    @property
    def cuda_major(self) -> int | None:
        """CUDA major version in the distribution's name (`..._cu13` is 13), or None."""
        match = re.search(r"-cu(\d+)", self.distribution)
        return int(match[1]) if match else None

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of the version; zeros where there are none."""
        match = re.match(r"(\d+)\.(\d+)", self.version)
        return (int(match[1]), int(match[2])) if match else (0, 0)


@dataclass(frozen=True)
class Surroundings:
    """Everything the targets' checks look at.

    Attributes:
        python: Version of the interpreter.
        platform: Operating system and processor, such as ``"Linux x86_64"``.
        components: Component name -> what was found, for every component the doctor knows.
        torch_cuda: CUDA version PyTorch was built for, such as ``"13.0"``; empty for none.
        gpu: Driver and devices.
        openvino: The devices that OpenVINO sees, or why it does not tell.
    """

    python: str
    platform: str
    components: Mapping[str, Component]
    torch_cuda: str
    gpu: Gpu
    openvino: tuple[str, ...] | EnvironmentProblem = ()


@dataclass(frozen=True)
class Problem:
    """Why a target does not work here, and what to do about it."""

    why_not: str = ""
    fix: str = ""


@dataclass(frozen=True)
class TargetVerdict:
    """Whether one target works here; `why_not` and `fix` are empty when it does."""

    name: str
    works: bool
    why_not: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The result of `diagnose`."""

    surroundings: Surroundings
    targets: tuple[TargetVerdict, ...]

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as a JSON object; what is not installed has null for its version."""
        found = self.surroundings
        return {
            "python": found.python,
            "platform": found.platform,
            "components": {
                c.name: {"distribution": c.distribution or None, "version": c.version or None}
                for c in found.components.values()
            },
            "torch_cuda": found.torch_cuda or None,
            "gpu": found.gpu.to_json(),
            "openvino_devices": [] if isinstance(found.openvino, EnvironmentProblem) else list(found.openvino),
            "targets": [asdict(target) for target in self.targets],
        }


def diagnose(
    *,
    version_of: Callable[[str], str | None] | None = None,
    gpu: Callable[[], Gpu] | None = None,
    torch_cuda: Callable[[], str] | None = None,
    platform_name: str | None = None,
    openvino: Callable[[], tuple[str, ...]] = devices,
) -> Diagnosis:
    """Examine this machine. The arguments replace the sources of facts, for tests.

    Args:
        version_of: Distribution name -> its version, or None where it is not installed.
        gpu: Finds driver and devices.
        torch_cuda: CUDA version PyTorch was built for, empty for none.
        platform_name: Operating system and processor, such as ``"Linux x86_64"``.
        openvino: The devices that OpenVINO sees; asked where it is installed only.
    """
    components = _installed(version_of or installed_version)
    found = Surroundings(
        python=platform.python_version(),
        platform=platform_name or f"{platform.system()} {platform.machine()}",
        components=components,
        torch_cuda=(torch_cuda or _torch_cuda)(),
        gpu=(gpu or probe_gpu)(),
        openvino=_devices(openvino) if components["openvino"].version else (),
    )
    problems = {target: check(found) for target, check in CHECKS.items()}
    verdicts = (TargetVerdict(name, not problem, *astuple(problem or Problem())) for name, problem in problems.items())
    return Diagnosis(found, tuple(verdicts))


# ---- facts ----


def _installed(version_of: Callable[[str], str | None]) -> dict[str, Component]:
    """Each component with the first of its distributions that is installed."""
    found = {}
    for name, distributions in _DISTRIBUTIONS.items():
        versions = ((d, v) for d in distributions if (v := version_of(d)))
        found[name] = Component(name, *next(versions, ("", "")))
    return found


def _devices(openvino: Callable[[], tuple[str, ...]]) -> tuple[str, ...] | EnvironmentProblem:
    try:
        return openvino()
    except EnvironmentProblem as problem:
        return problem


def _torch_cuda() -> str:
    """CUDA version PyTorch was built for, read from torch/version.py without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return match[1] if match else ""


# ---- targets ----


def _onnxruntime_cpu(found: Surroundings) -> Problem | None:
    return _missing(found, "onnxruntime", "pip install onnxruntime")


def _openvino_cpu(found: Surroundings) -> Problem | None:
    if isinstance(found.openvino, EnvironmentProblem):
        return Problem(" ".join(filter(None, (found.openvino.what, found.openvino.why))), found.openvino.fix)
    return _missing(found, "openvino", INSTALL)


def _rtx_build(found: Surroundings) -> Problem | None:
    if found.platform not in ("Linux x86_64", "Windows AMD64"):
        return Problem(
            f"TensorRT-RTX is made for Linux and Windows on x86-64, and this is {found.platform}",
            "use the target onnxruntime-cpu here, or build on such a machine",
        )
    libraries, bindings = "tensorrt-rtx libraries", "tensorrt-rtx bindings"
    return _missing(found, libraries, RTX_INSTALL) or _missing(found, bindings, RTX_INSTALL)


def _rtx_run(found: Surroundings) -> Problem | None:
    needed = ", ".join(f"{major}.{minor}" for major, minor in _RTX_CAPABILITIES)
    return (
        _rtx_build(found)
        or _no_gpu(found, found.components["tensorrt-rtx libraries"].cuda_major)
        or _no_device(found, lambda c: c in _RTX_CAPABILITIES, f"one of {needed}")
        or _no_device_memory(found)
    )


def _rtx_plugins_build(found: Surroundings) -> Problem | None:  # Triton compiles what the plan carries
    return _rtx_build(found) or _missing(found, "triton", "pip install triton")


def _rtx_plugins_run(found: Surroundings) -> Problem | None:  # and this launches it
    return _rtx_run(found) or _missing(found, "cuda-bindings", "pip install cuda-bindings")


def _tensorrt(found: Surroundings) -> Problem | None:  # it times its kernels on the GPU: building needs one, too
    if problem := _missing(found, "tensorrt", TENSORRT_INSTALL):
        return problem
    tensorrt = found.components["tensorrt"]
    low, high = TENSORRT_RELEASES
    if not low <= tensorrt.release < high:
        return Problem(
            f"TensorRT {tensorrt.version} is installed, and {low[0]}.{low[1]} or later, below {high[0]}, is needed",
            TENSORRT_INSTALL,
        )
    return _no_gpu(found, tensorrt.cuda_major) or _no_device(
        found, lambda c: c >= _TENSORRT_MINIMUM, "{}.{} or higher".format(*_TENSORRT_MINIMUM)
    )


def _tensorrt_run(found: Surroundings) -> Problem | None:
    return _tensorrt(found) or _no_device_memory(found)


def _torch_on_cuda(found: Surroundings) -> Problem | None:
    if problem := _missing(found, "torch", "pip install torch"):
        return problem
    if not found.torch_cuda:
        return Problem(
            f"PyTorch {found.components['torch'].version} is a build without CUDA",
            "install a CUDA build of PyTorch (its installation page has the command)",
        )
    return _no_gpu(found, int(found.torch_cuda.partition(".")[0]))


def _no_device_memory(found: Surroundings) -> Problem | None:
    """Nothing through which the TensorRT runner could allocate memory of the GPU."""
    if (found.components["torch"].version and found.torch_cuda) or found.components["pycuda"].version:
        return None
    return Problem(
        "memory of the GPU is allocated through PyTorch or PyCUDA, and neither a CUDA build of PyTorch nor PyCUDA is "
        "installed",
        "install a CUDA build of PyTorch (its installation page has the command), or pip install pycuda",
    )


def _missing(found: Surroundings, component: str, fix: str) -> Problem | None:
    if found.components[component].version:
        return None
    return Problem(f"{component} is not installed in {sys.prefix}", fix)


def _no_gpu(found: Surroundings, cuda_major: int | None) -> Problem | None:
    """No GPU, or a driver older than the CUDA major version that a package was built for."""
    gpu = found.gpu
    if not gpu.devices:
        return Problem(gpu.why_not, "use a machine with an NVIDIA GPU and its driver")
    if cuda_major is not None and gpu.cuda is not None and gpu.cuda[0] < cuda_major:
        return Problem(
            "the driver supports CUDA {}.{}".format(*gpu.cuda) + f", and CUDA {cuda_major} is needed",
            "install a newer NVIDIA driver",
        )
    return None


def _no_device(found: Surroundings, accepts: Callable[[tuple[int, int]], bool], needed: str) -> Problem | None:
    """No device whose compute capability the target accepts."""
    devices = found.gpu.devices
    if any(accepts(device.compute_capability) for device in devices):
        return None
    here = ", ".join("{} ({}.{})".format(d.name, *d.compute_capability) for d in devices)
    return Problem(
        f"compute capability {needed} is needed, and this machine has {here}",
        "use another GPU, or the target onnxruntime-cpu",
    )


CHECKS: dict[str, Callable[[Surroundings], Problem | None]] = {
    "onnxruntime-cpu": _onnxruntime_cpu,
    "openvino-cpu": _openvino_cpu,
    "tensorrt-rtx build": _rtx_build,
    "tensorrt-rtx run": _rtx_run,
    "tensorrt-rtx plugins build": _rtx_plugins_build,
    "tensorrt-rtx plugins run": _rtx_plugins_run,
    "tensorrt build": _tensorrt,
    "tensorrt run": _tensorrt_run,
    "torch-cuda": _torch_on_cuda,
}
"""What every target needs: None where it works here."""
