"""A stand-in for the runtime part of TensorRT's Python module, which checks the order in which it is called.

It has the names and the signatures of the bindings (`tests/contract/` compares them with the real ones), but its
engines are Python functions on the memory of a `fake_cuda.Gpu`. A plan is JSON, made by `make_plan`. A call that
TensorRT would refuse is refused as TensorRT does it: a message to the logger, and False or None.
"""

from __future__ import annotations

import enum
import json
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from .fake_cuda import Gpu

Network = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def make_plan(profiles: Sequence[Any], **facts: Any) -> bytes:
    """A plan for `module`; `profiles` are `Profile` objects, `facts` must have the ``scale`` and the ``channels``."""
    usual = {"dtype": "FLOAT", "built_with": "11.4.0.106", "host_code": False}
    tensors = (("input", "INPUT"), ("output", "OUTPUT"))
    plan = {"profiles": [profile.to_json() for profile in profiles], "tensors": tensors, **usual, **facts}
    return json.dumps(plan).encode()


class Enumeration(enum.Enum):
    """Prints as the bindings' enumerations do, and is no integer, so that a number in its place shows."""

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


DataType = Enumeration("DataType", "FLOAT HALF")
TensorIOMode = Enumeration("TensorIOMode", "NONE INPUT OUTPUT")
ExecutionContextAllocationStrategy = Enumeration(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED"
)
CudaGraphStrategy = Enumeration("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
Severity = Enumeration("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.initialised = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class Module:
    """What the module ``tensorrt`` (or ``tensorrt_rtx``) is to the runner.

    Args:
        gpu: The device.
        network: Images in, images out.
        rtx: Offer the runtime configuration of TensorRT-RTX.
        version: Version of the module; plans of another one are refused.
    """

    def __init__(self, gpu: Gpu, network: Network, rtx: bool = False, version: str = "11.4.0.106") -> None:
        self.gpu, self.network, self.__version__ = gpu, network, version
        self.ILogger, self.DataType, self.TensorIOMode = ILogger, DataType, TensorIOMode
        self.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
        if rtx:
            self.CudaGraphStrategy = CudaGraphStrategy
        self.rtx = rtx
        self.events: list[str] = []
        self.contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()
        self.driver_too_old = self.no_context = self.no_execution = False
        self.scratch_per_pixel = 16

    def Runtime(self, logger: ILogger) -> Any:  # the binding's name
        assert logger.initialised, "the logger's base class was not initialised"
        if self.driver_too_old:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            logger.log(Severity.ERROR, "CUDA driver version is insufficient for CUDA runtime version")
            return SimpleNamespace()  # the real one crashes the process when used; this one has no attributes
        return Runtime(self, logger)


class Runtime:
    def __init__(self, module: Module, logger: ILogger) -> None:
        self.module, self.logger = module, logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        assert self.module.gpu.current
        try:
            plan = json.loads(serialized_engine)
        except ValueError:
            self.logger.log(Severity.ERROR, "Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.")
            return None
        if plan["host_code"] and not self.engine_host_code_allowed:
            self.logger.log(Severity.ERROR, "The plan contains host code, which is not allowed")
            return None
        if not plan["host_code"] and plan["built_with"] != self.module.__version__:
            self.logger.log(Severity.ERROR, "Version tag does not match. Note: Current Version: 240, Plan: 239")
            return None
        return ICudaEngine(self.module, self.logger, plan)


class IRuntimeConfig:
    """Of TensorRT; that of TensorRT-RTX has more."""

    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.strategy = ExecutionContextAllocationStrategy(strategy)


class RtxRuntimeConfig(IRuntimeConfig):
    def __init__(self) -> None:
        super().__init__()
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.cache: object = None

    def create_runtime_cache(self) -> object:
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        self.cache = cache
        return True


class ICudaEngine:
    def __init__(self, module: Module, logger: ILogger, plan: dict[str, Any]) -> None:
        self.module, self.logger, self.plan = module, logger, plan
        self.num_io_tensors = len(plan["tensors"])
        self.num_optimization_profiles = len(plan["profiles"])
        self.configs: list[Any] = []

    def get_tensor_name(self, index: int) -> str:
        return self.plan["tensors"][index][0]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[dict(self.plan["tensors"])[name]]

    def get_tensor_dtype(self, name: str) -> DataType:
        assert name in dict(self.plan["tensors"])
        return DataType[self.plan["dtype"]]

    def create_runtime_config(self) -> IRuntimeConfig:
        return RtxRuntimeConfig() if self.module.rtx else IRuntimeConfig()

    def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> Any:
        assert self.module.gpu.current
        self.configs.append(strategy)
        if isinstance(strategy, IRuntimeConfig):
            strategy = strategy.strategy
        if self.module.no_context:
            self.logger.log(Severity.ERROR, "IRuntime: Error Code 2: OutOfMemory (Requested size was 123 bytes.)")
            return None
        context = IExecutionContext(self, ExecutionContextAllocationStrategy(strategy))
        self.module.contexts.add(context)
        self.module.events.append("create")
        return context


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        self.engine, self.module = engine, engine.module
        self.user_managed = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self.profile = 0 if engine.num_optimization_profiles == 1 else None
        self.shape: tuple[int, ...] | None = None
        self.need: int | None = None
        self.scratch: tuple[int, int] | None = None
        self.addresses: dict[str, int] = {}
        self.ran = False

    def _refuse(self, message: str) -> bool:
        self.engine.logger.log(Severity.ERROR, f"IExecutionContext: Error Code 3: API Usage Error ({message})")
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == self.module.gpu.stream.handle
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._refuse(f"profile {profile_index}")
        self.profile, self.shape = profile_index, None
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.shape is None, "a context must keep its shape: changing it leaks memory"
        assert type(shape) is tuple
        assert self.engine.get_tensor_mode(name) is TensorIOMode.INPUT
        if self.profile is None:
            return self._refuse("no profile was selected")
        limits = self.engine.plan["profiles"][self.profile]
        batch, channels, *sides = shape
        inside = all(
            low <= size <= high for low, size, high in zip(limits["min"], (batch, *sides), limits["max"], strict=True)
        )
        if not inside or channels != self.engine.plan["channels"]:
            return self._refuse(f"Supplied binding dimension {list(shape)} for {name} is outside the profile")
        self.shape, self.ran = shape, False
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None, "shapes are known after the input's"
        if self.engine.get_tensor_mode(name) is TensorIOMode.INPUT:
            return self.shape
        scale = self.engine.plan["scale"]
        return (*self.shape[:2], self.shape[2] * scale, self.shape[3] * scale)

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.user_managed
        self.need = self.module.scratch_per_pixel * self.shape[0] * self.shape[2] * self.shape[3]
        return self.need

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self.user_managed
        assert memory % 256 == 0
        self.module.gpu.at(memory, size)
        self.scratch = (memory, size)
        self.ran = False

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert self.shape is not None, "the shape comes before the addresses"
        assert name in dict(self.engine.plan["tensors"])
        self.module.gpu.at(memory, 1)
        self.addresses[name] = memory
        self.ran = False
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu = self.module.gpu
        assert gpu.current, "the GPU's context is not current"
        assert stream_handle == gpu.stream.handle != 0
        if self.module.no_execution:
            return self._refuse("Cuda failure: an illegal memory access was encountered")
        if self.shape is None or set(self.addresses) != {name for name, _ in self.engine.plan["tensors"]}:
            return self._refuse("shapes and addresses must be set")
        if self.need is None or self.scratch is None or self.scratch[1] < self.need:
            return self._refuse("device memory was not given")
        capturing = gpu.stream.recording is not None
        if capturing and not self.ran:
            return self._refuse("a plain execution must come before the capture")
        gpu.stream.queue(self._work())
        self.ran = True
        self.module.events.append("capture" if capturing else "execute")
        return True

    def _work(self) -> Callable[[], None]:
        """What the GPU does: with the addresses and shapes of now."""
        module, shape, addresses = self.module, self.shape, dict(self.addresses)
        scratch, need = self.scratch, self.need
        output = self.get_tensor_shape("output")

        def work() -> None:
            module.gpu.at(scratch[0], need or 0)[:] = 0x5A
            source, target = (
                module.gpu.at(addresses[name], 4 * int(np.prod(sizes))).view(np.float32).reshape(sizes)
                for name, sizes in (("input", shape), ("output", output))
            )
            target[:] = module.network(source)

        return work


_CLASSES = (ILogger, Runtime, ICudaEngine, IExecutionContext, IRuntimeConfig)
_ENUMERATIONS = (DataType, TensorIOMode, ExecutionContextAllocationStrategy)
SURFACE = {each.__name__: each for each in (*_CLASSES, *_ENUMERATIONS)}
"""Every class of the stand-in by the name the bindings have for it."""

RTX_SURFACE = {**SURFACE, "IRuntimeConfig": RtxRuntimeConfig, "CudaGraphStrategy": CudaGraphStrategy}
"""The same for TensorRT-RTX."""

PROPERTIES = {
    "Runtime": ("engine_host_code_allowed",),
    "ICudaEngine": ("num_io_tensors", "num_optimization_profiles"),
}
"""Attributes of the stand-ins that the bindings have as properties; their other attributes are bookkeeping."""

RTX_PROPERTIES = {**PROPERTIES, "IRuntimeConfig": ("cuda_graph_strategy",)}
"""The same for TensorRT-RTX."""
