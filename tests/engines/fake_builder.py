"""A stand-in for the building part of TensorRT's Python module, which records how it is called.

It has the names of the bindings (`tests/contract/` holds the program's uses against the real ones), parses what says
``sound`` and refuses the rest, and inspects every engine as two half-precision kernels.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import onnx

__version__ = "10.16.1.11"

calls: list[tuple[Any, ...]] = []


class Enumeration(enum.Enum):
    def __int__(self) -> int:
        return int(self.value)


Severity = Enumeration("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
NetworkDefinitionCreationFlag = Enumeration(
    "NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1, "PREFER_AOT_PYTHON_PLUGINS": 3}
)
BuilderFlag = Enumeration("BuilderFlag", "TF32 VERSION_COMPATIBLE")
HardwareCompatibilityLevel = Enumeration("HardwareCompatibilityLevel", "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY")
MemoryPoolType = Enumeration("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = Enumeration("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
PreviewFeature = Enumeration("PreviewFeature", "RUNTIME_ACTIVATION_RESIZE_10_10")
LayerInformationFormat = Enumeration("LayerInformationFormat", "ONELINE JSON")
ErrorCode = Enumeration("ErrorCode", "UNSUPPORTED_NODE")

LAYERS = {
    "Layers": [
        {
            "Name": name,
            "LayerType": "gemm",
            "Inputs": [{"Name": "x", "Dimensions": [8, 8], "Format/Datatype": datatype}],
            "Outputs": [{"Name": "y", "Dimensions": [8, 8], "Format/Datatype": datatype}],
            "TacticName": "tactic",
            "Metadata": f"[ONNX Layer: {name}]",
        }
        for name, datatype in (("node_MatMul_0", "Half"), ("node_MatMul_1", "Half"))
    ]
}


class ILogger:
    Severity = Severity

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


class EngineInspector:
    def get_engine_information(self, form: Any) -> str:
        calls.append(("get_engine_information", form.name))
        return json.dumps(LAYERS)


class ParserError:
    def desc(self) -> str:
        return "Unsupported operator"

    def code(self) -> Any:
        return ErrorCode.UNSUPPORTED_NODE

    def node(self) -> int:
        return 3

    def node_name(self) -> str:
        return "node_Odd_3"

    def node_operator(self) -> str:
        return "Odd"


class OnnxParser:
    num_errors = 1

    def __init__(self, network: Any, logger: Any) -> None:
        self.logger = logger

    def parse(self, model: bytes, path: str) -> bool:
        functions = [function.name for function in onnx.load_from_string(model).functions] if model else []
        calls.append(("parse", functions))
        if "sound" in Path(path).name:
            return True
        self.logger.log(Severity.ERROR, "While parsing node number 3")
        return False

    def get_error(self, index: int) -> ParserError:
        assert index == 0
        return ParserError()


class Tensor:
    name = "input"
    shape = (-1, 3, -1, -1)


class Network:
    num_layers = 7

    def get_input(self, index: int) -> Tensor:
        assert index == 0
        return Tensor()


class Profile:
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        calls.append(("set_shape", name, *shapes))


class TimingCache:
    def __init__(self, known: bytes) -> None:
        self.known = known

    def serialize(self) -> bytes:
        return self.known + b" and more"


class BuilderConfig:
    """Records every attribute that is set and every method that is called."""

    def __setattr__(self, name: str, value: Any) -> None:
        calls.append((name, getattr(value, "name", value)))
        object.__setattr__(self, name, value)

    def set_flag(self, flag: Any) -> None:
        calls.append(("set_flag", flag.name))

    def clear_flag(self, flag: Any) -> None:
        calls.append(("clear_flag", flag.name))

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        calls.append(("set_preview_feature", feature.name, enable))

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        calls.append(("set_memory_pool_limit", pool.name, size))

    def create_timing_cache(self, known: bytes) -> TimingCache:
        return TimingCache(known)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        calls.append(("set_timing_cache", cache.known, ignore_mismatch))
        return cache.known != b"of another GPU"

    def add_optimization_profile(self, profile: Profile) -> int:
        calls.append(("add_optimization_profile",))
        return 0


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        calls.append(("create_network", flags))
        return Network()

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Any) -> bytes:
        monitor = config.progress_monitor
        monitor.phase_start("Building engine from subgraph", "Building engine", 1)
        assert monitor.step_complete("Building engine from subgraph", 0)
        monitor.phase_finish("Building engine from subgraph")
        self.logger.log(Severity.VERBOSE, "built")
        return b"a plan"


class Engine:
    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector()


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> Engine:
        calls.append(("deserialize_cuda_engine", plan, self.engine_host_code_allowed))
        return Engine()
