"""TensorRT-RTX builds, for tests that read the kernels from the builder's log."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from agileir_export.engines.audit.verdict import Kernel, kernels_from_rtx_log
from agileir_export.engines.building.engine import EngineBuild, build_request, make_engine
from agileir_export.engines.building.process import BuildResult, build_in_process
from agileir_export.engines.building.request import BuildOptions
from agileir_export.engines.profile_choice import Sizes
from agileir_export.engines.profiles import Profile
from agileir_export.export import export_onnx
from agileir_export.models import load_model

from ..export import networks
from ..export.written import half_file
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


RTX_GPUS = ("sm86", "sm89", "sm120")


@cache
def with_plugins(folder: Path, kind: str, precision: str, blocks: bool = False) -> EngineBuild:
    """An engine of free size with plugins, half `blocks` among them, of a network of `networks`; made once a session.

    Others than those of `networks` are packaged models.
    """
    if kind in networks.SHAPES:
        artifact = networks.exported(folder, kind)
    else:
        artifact = export_onnx(load_model(kind), folder / f"{kind}.onnx")
    if precision != "float32":
        artifact = half_file(artifact, folder / f"{kind}.{precision}.onnx", precision)
    multiple = artifact.spec.pad_multiple
    sides = ((1, multiple, multiple), (1, 2 * multiple, 3 * multiple), (2, 4 * multiple, 4 * multiple))
    sizes = Sizes(exact=(Profile(*sides),))
    options = BuildOptions(target="rtx", gpus=RTX_GPUS, fuse_blocks=blocks)
    return make_engine(artifact, build_request(artifact, options, sizes, "plugin"))
