"""One path from an ONNX file to an engine, for TensorRT 10.4 to 11 and TensorRT-RTX.

It receives the target's module as ``trt`` and knows nothing else of it. Networks are strongly typed: precision is what
the file says, and TF32 the only switch. What only some versions have is asked for before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...export.artifact import parse_onnx
from ...progress import Progress
from ..failures import BuildFailed, Failure
from ..profiles import Shape
from .inlining import inline_operators
from .request import BuildRequest

if TYPE_CHECKING:
    import onnx

__all__ = ["PHASES", "Built", "build"]

PHASES = ("parsing", "preparing", "optimising", "serialising", "inspecting")
"""What a build does, in order."""

COMPATIBILITY_NAMES = {"same-capability": "SAME_COMPUTE_CAPABILITY", "ampere-plus": "AMPERE_PLUS"}


@dataclass(frozen=True)
class Built:
    """What a build made.

    Attributes:
        plan: The engine as an object with the buffer interface.
        layers: Layers of the parsed network.
        inspection: The engine inspector's JSON; None where the target has none (its log lists the kernels then).
        timing_cache: The timing cache after the build; None where none was asked for.
    """

    plan: Any
    layers: int
    inspection: str | None
    timing_cache: bytes | None


def build(
    trt: Any,
    logger: Any,
    request: BuildRequest,
    model: bytes,
    progress: Progress,
    errors: Callable[[], tuple[str, ...]],
) -> Built:
    """Builds an engine.

    Args:
        trt: The target's module; plugins, where the request wants them, are registered with it already.
        logger: The process's only logger.
        request: What to build.
        model: The ONNX model.
        progress: Told every phase as it begins.
        errors: The messages logged as errors so far.

    Raises:
        OnnxFileError: The file is not ONNX.
        BuildFailed: The file does not parse or does not build.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(_creation_flags(trt))
    progress("parsing")
    parser = trt.OnnxParser(network, logger)
    if not _parse(parser, request, model):
        raise BuildFailed(_parse_failure(parser, request, errors()))
    config = builder.create_builder_config()
    _configure(trt, config, request)
    timing_cache = _timing_cache(config, request)
    _add_profiles(builder, network, config, request, errors)
    # The monitor must outlive the build: TensorRT does not hold it.
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    progress("preparing")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed(Failure(errors(), request.subject))
    return Built(
        plan=plan,
        layers=network.num_layers,
        inspection=_inspect(trt, logger, plan, request, progress),
        timing_cache=None if timing_cache is None else bytes(memoryview(timing_cache.serialize())),
    )


def _parse(parser: Any, request: BuildRequest, data: bytes) -> bool:
    """Reads a model into the network: its operators as plugins, or written out as their function bodies.

    A file whose bodies are of another opset than its graph, which no export makes, is left to the parser, too.
    """
    model = None if request.use_plugins else parse_onnx(data, Path(request.subject))
    if model is not None and model.functions and len(_opsets(model)) <= 1:
        data = inline_operators(model).SerializeToString()
    return bool(parser.parse(data, request.subject))  # the name tells where weights in files of their own lie


def _opsets(model: onnx.ModelProto) -> set[int]:
    """Opsets of ONNX's own domain that the graph and the function bodies are in."""
    entries = (entry for part in (model, *model.functions) for entry in part.opset_import)
    return {entry.version for entry in entries if entry.domain in ("", "ai.onnx")}


def _creation_flags(trt: Any) -> int:
    """Strong typing, and kernels inside the engine, where there is a choice."""
    members = trt.NetworkDefinitionCreationFlag.__members__
    names = ("STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS")
    return sum(1 << int(members[name]) for name in names if name in members)


def _configure(trt: Any, config: Any, request: BuildRequest) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Working memory follows the picture, not the profile's maximum; TensorRT-RTX does so by itself.
    features = trt.PreviewFeature.__members__
    if "RUNTIME_ACTIVATION_RESIZE_10_10" in features:
        config.set_preview_feature(features["RUNTIME_ACTIVATION_RESIZE_10_10"], True)
    if request.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if request.hardware_compatible != "none":
        levels = trt.HardwareCompatibilityLevel.__members__
        config.hardware_compatibility_level = levels[COMPATIBILITY_NAMES[request.hardware_compatible]]
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.gpus and hasattr(trt, "ComputeCapability"):
        capabilities = trt.ComputeCapability.__members__
        config.num_compute_capabilities = len(request.gpus)
        for index, gpu in enumerate(request.gpus):
            config.set_compute_capability(capabilities[gpu.upper()], index)


def _timing_cache(config: Any, request: BuildRequest) -> Any:
    """The timing cache the request names, in use by the configuration; None where it names none.

    A cache of another GPU or version is refused by TensorRT; an empty one then takes its place.
    """
    if request.timing_cache is None:
        return None
    known = request.timing_cache.read_bytes() if request.timing_cache.exists() else b""
    for content in (known, b""):
        timing_cache = config.create_timing_cache(content)
        if timing_cache is not None and config.set_timing_cache(timing_cache, ignore_mismatch=False):
            return timing_cache
    return None


def _add_profiles(
    builder: Any, network: Any, config: Any, request: BuildRequest, errors: Callable[[], tuple[str, ...]]
) -> None:
    images = network.get_input(0)
    channels = images.shape[1]

    def full(shape: Shape) -> tuple[int, int, int, int]:
        batch, rows, columns = shape
        return batch, channels, rows, columns

    for sizes in request.profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(images.name, full(sizes.minimum), full(sizes.optimum), full(sizes.maximum))
        if config.add_optimization_profile(profile) < 0:
            raise BuildFailed(Failure(errors(), request.subject))


def _monitor(trt: Any, progress: Progress) -> Any:
    """Hears from the builder where it is; its two longest phases have names of ours."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if phase_name.startswith("Building engine from"):
                progress("optimising")

        def phase_finish(self, phase_name: str) -> None:
            if phase_name.startswith("Building engine from"):
                progress("serialising")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

    return Monitor()


def _inspect(trt: Any, logger: Any, plan: Any, request: BuildRequest, progress: Progress) -> str | None:
    """What the engine says its kernels are; None where the engine does not load, or is for other GPUs than this."""
    if request.target_entry.builds_without_gpu:
        return None
    progress("inspecting")
    runtime = trt.Runtime(logger)
    if request.version_compatible:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _parse_failure(parser: Any, request: BuildRequest, errors: tuple[str, ...]) -> Failure:
    """What the parser says of the node it stopped at."""
    reports = [parser.get_error(index) for index in range(parser.num_errors)]
    said = tuple(str(report.desc()) for report in reports) or errors
    if not reports:
        return Failure(said, request.subject, code="INTERNAL_ERROR")
    first = reports[0]
    node = first.node_name() or (f"number {first.node()}" if first.node() >= 0 else "")
    importer = re.search(r"In function import(\w+):", "\n".join(errors))
    operator = first.node_operator() or (importer[1] if importer else "")
    return Failure(said, request.subject, node, operator, first.code().name)
