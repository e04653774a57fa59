"""Executes a plan with TensorRT, NumPy and the CUDA driver alone; importing anything of ours, or Triton, is an error.

Usage: ``python bare_plan.py PLAN IN.npy OUT.npy``; prints what was loaded as JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

REFUSED = ("agileir_export", "torch", "triton", "onnx", "onnxruntime", "pycuda", "cupy", "cuda")


class Refuse(MetaPathFinder):
    """Refuses modules that are there, and that a plan must not need."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        """Raises ImportError for them."""
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} must not be needed")


class Driver:
    """The CUDA driver: a context, memory and a stream.

    Raises:
        RuntimeError: A call failed.
    """

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        device, context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(self.stream), 1)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the driver."""
        code = getattr(self.library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} answered {code}")

    def allocate(self, nbytes: int) -> ctypes.c_uint64:
        """Address of device memory."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
        return address


def execute(plan: str, source: str, target: str) -> dict[str, Any]:
    """Runs the plan on an array."""
    sys.meta_path.insert(0, Refuse())
    import numpy as np
    import tensorrt as trt

    driver = Driver()
    logger = trt.Logger(trt.Logger.WARNING)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(Path(plan).read_bytes())
    if engine is None:
        raise RuntimeError("TensorRT does not load the plan")
    context = engine.create_execution_context()
    images = np.ascontiguousarray(np.load(source))
    if not context.set_input_shape("input", images.shape):
        raise RuntimeError(f"TensorRT does not take {images.shape}")
    result = np.empty(tuple(context.get_tensor_shape("output")), np.float32)
    addresses = {"input": driver.allocate(images.nbytes), "output": driver.allocate(result.nbytes)}
    for name, address in addresses.items():
        context.set_tensor_address(name, address.value)
    pointer = ctypes.c_void_p(images.ctypes.data)
    driver.call("cuMemcpyHtoD_v2", addresses["input"], pointer, ctypes.c_size_t(images.nbytes))
    if not context.execute_async_v3(driver.stream.value):
        raise RuntimeError("TensorRT does not execute the plan")
    driver.call("cuStreamSynchronize", driver.stream)
    pointer = ctypes.c_void_p(result.ctypes.data)
    driver.call("cuMemcpyDtoH_v2", pointer, addresses["output"], ctypes.c_size_t(result.nbytes))
    np.save(target, result)
    loaded = sorted({name.partition(".")[0] for name in sys.modules if not name.startswith("_")})
    known = set(sys.stdlib_module_names)
    return {"tensorrt": trt.__version__, "numpy": np.__version__, "modules": [n for n in loaded if n not in known]}


def main(given: Sequence[str]) -> int:
    """Runs and tells."""
    print(json.dumps(execute(*given)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
