"""TensorRT-RTX builds, for tests that read the kernels from the builder's log."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from agileir_export.engines.audit.verdict import Kernel, kernels_from_rtx_log
from agileir_export.engines.building.process import BuildResult, build_in_process
from agileir_export.engines.profiles import Profile

from .builds import request

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="the wheels tensorrt_rtx_cu13_libs and tensorrt_rtx_cu13_bindings are not installed",
)


def kernels_of(result: BuildResult) -> list[Kernel]:
    """The kernels that a build's log lists."""
    return kernels_from_rtx_log([message for _, message in result.messages])


def kernels_of_build(path: Path, *profiles: Profile, gpus: tuple[str, ...] = ("sm86",)) -> list[Kernel]:
    """Builds a file, with a profile where its sizes are free; the plan is thrown away."""
    return kernels_of(build_in_process(request(path, profiles=profiles, gpus=gpus)))
