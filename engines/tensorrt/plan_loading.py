"""From a plan to an engine that TensorRT can run, or to a sentence that says why it cannot."""

from __future__ import annotations

import ctypes
from collections import deque
from functools import cache
from typing import Any

from ...errors import AgileIRError, EnvironmentProblem, InputError, InternalError
from ..artifact import EngineArtifact
from ..cuda_driver import Gpu, probe_gpu
from ..failures import MEMORY, explain_load
from ..targets import TARGETS
from .device_memory import DeviceMemory, OutOfDeviceMemory
from .logger import ERRORS, make_logger

__all__ = ["Messages", "deserialize", "messages_of", "require_gpu", "runtime_failure"]

KEPT = 50
"""Messages of TensorRT that are kept: more than it writes about one failure."""


class Messages:
    """TensorRT's latest warnings and errors. It writes to one logger a process, which then says why a call failed."""

    def __init__(self, trt: Any) -> None:
        self._kept: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self.logger = make_logger(trt, self._keep)

    def _keep(self, severity: str, text: str) -> None:
        if severity in (*ERRORS, "WARNING"):
            self._kept.append((severity, text))

    def clear(self) -> None:
        """Forgets what was written so far, before a call that may fail."""
        self._kept.clear()

    def errors(self) -> list[str]:
        """The errors since `clear`, oldest first."""
        return [text for severity, text in self._kept if severity in ERRORS]

    def lines(self) -> list[str]:
        """The errors, or the warnings where there are no errors."""
        return self.errors() or [text for _, text in self._kept]


@cache
def messages_of(trt: Any) -> Messages:
    """The process's messages of a target: made once, since TensorRT keeps the first logger it meets."""
    return Messages(trt)


def require_gpu(target: str, gpu: Gpu | None = None) -> Gpu:
    """The driver and its GPUs. TensorRT must not be touched without: its runtime object then crashes the process.

    Raises:
        EnvironmentProblem: There is no driver or no GPU.
    """
    gpu = gpu or probe_gpu()
    if not gpu.devices:
        raise EnvironmentProblem(
            f"{TARGETS[target].title} engines run on an NVIDIA GPU only.",
            why=f"Here: {gpu.why_not}.",
            fix="Use a machine with a GPU and its driver, or the ONNX file, which runs on any processor.",
        )
    return gpu


def deserialize(trt: Any, artifact: EngineArtifact, memory: DeviceMemory) -> tuple[Any, Any]:
    """Loads a plan onto the GPU.

    Args:
        trt: The target's module.
        artifact: The engine and what its sidecar says.
        memory: For the name of the GPU; its context is current.

    Returns:
        The runtime, which must live as long as the engine, and the engine.

    Raises:
        AgileIRError: The plan is for another GPU or version, the driver is too old, or memory is short.
        InputError: The plan is not of one of our models.
    """
    messages = messages_of(trt)
    messages.clear()
    runtime = trt.Runtime(messages.logger)
    engine = None
    if messages.errors():
        _keep_forever(runtime)
    else:
        if artifact.facts.get("version_compatible"):
            runtime.engine_host_code_allowed = True  # such a plan carries its own runtime, as code
        engine = runtime.deserialize_cuda_engine(artifact.path.read_bytes())
    if engine is None:
        title = TARGETS[artifact.target].title
        here = f"version {trt.__version__} and {device_name(memory)}"
        raise explain_load(messages.lines(), str(artifact.path), title, _built_with(artifact), here)
    _check_tensors(trt, artifact, engine)
    return runtime, engine


def _keep_forever(runtime: Any) -> None:
    """One reference too many: without a driver, TensorRT's runtime is empty, and crashes when used or destroyed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))


def _check_tensors(trt: Any, artifact: EngineArtifact, engine: Any) -> None:
    """Refuses a plan whose tensors are not those of our models."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = (sorted(engine.get_tensor_mode(name).name for name in names), len(artifact.profiles))
    if found != (["INPUT", "OUTPUT"], engine.num_optimization_profiles):
        raise InputError(
            f"{artifact.path} has the tensors {', '.join(names)} and {engine.num_optimization_profiles} profile(s), "
            f"where its sidecar promises one input, one output and {len(artifact.profiles)} profile(s).",
            fix="Build the engine again.",
        )
    for name in names:
        kind = engine.get_tensor_dtype(name)
        if kind != trt.DataType.FLOAT:
            raise InputError(
                f"The tensor {name} of {artifact.path} is {kind.name}, and ours are float32.",
                fix="Build the engine again with `agileir-export trt`, which keeps input and output in float32.",
            )


def runtime_failure(trt: Any, artifact: EngineArtifact, memory: DeviceMemory, what: str) -> AgileIRError:
    """The error of a call to TensorRT that failed after the engine was loaded.

    Args:
        trt: The target's module.
        artifact: The engine.
        memory: For the name of the GPU.
        what: What TensorRT did not do, such as ``"execute 1x3x64x64"``.
    """
    lines = messages_of(trt).lines()
    title = TARGETS[artifact.target].title
    if any(MEMORY.search(line) for line in lines):
        return OutOfDeviceMemory(f"{title} to {what} with {artifact.path}", device_name(memory), lines[-1])
    return InternalError(
        f"{title} {trt.__version__} did not {what} with {artifact.path}.",
        why=f"It says: {lines[-1]}" if lines else "It says nothing.",
        fix="Build the engine again on this machine; if that does not help, report it with these lines.",
    )


def device_name(memory: DeviceMemory) -> str:
    """Name and compute capability of the GPU, such as ``"NVIDIA L4 (8.9)"``."""
    here = memory.describe()
    return f"{here['device']} ({here['compute_capability']})"


def _built_with(artifact: EngineArtifact) -> str:
    """Version and GPU of the build, as the sidecar tells."""
    version = artifact.facts.get("target_version")
    gpus = artifact.facts.get("gpu") or ", ".join(artifact.gpus) or "an unknown GPU"
    return f"{f'version {version}' if version else 'an unknown version'} for {gpus}"
