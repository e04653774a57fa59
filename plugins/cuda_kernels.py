"""Launching the kernels that a plan carries, through CUDA's driver API: neither PyTorch nor Triton is needed.

The binding is NVIDIA's own, ``cuda.bindings``, which every CUDA build of PyTorch brings along.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import AgileIRError, EnvironmentProblem, InputError, InternalError, Unsupported
from .kernel_records import CarriedKernel, KernelRecord
from .launch import MAX_PIXELS, MAX_SHARED_BYTES, counted_sides, programs_of
from .ptx import TARGET, own_instructions

__all__ = ["INSTALL", "Driver", "cuda_driver"]

INSTALL = "pip install cuda-bindings"

LOG_BYTES = 8192
"""Room for what the driver's compiler says."""


class Driver:
    """CUDA's driver in this process: kernels are loaded once for every context, and launched on any stream of it.

    All methods concern the context that is current in the calling thread, and may be called by several threads.

    Args:
        cuda: The module ``cuda.bindings.driver``.

    Raises:
        EnvironmentProblem: There is no driver, or it does not start.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._lock = threading.Lock()
        self._functions: dict[tuple[int, CarriedKernel], Any] = {}
        self._capabilities: dict[int, int] = {}
        try:
            (status,) = cuda.cuInit(0)
        except (RuntimeError, OSError) as error:  # the library is missing
            raise EnvironmentProblem(
                "Engines with plugins of this package need the NVIDIA driver.",
                why=f"{error}",
                fix="Use a machine with an NVIDIA GPU and its driver; `agileir-export doctor` says what is here.",
            ) from error
        if status.value:
            raise EnvironmentProblem(
                f"The NVIDIA driver does not start: {self._said(status)}.",
                fix="`agileir-export doctor` says what is here.",
            )

    def prepare(self, record: KernelRecord, tactic: int) -> None:
        """Loads a layer's kernel for the current context, so that a launch does nothing else.

        Raises:
            AgileIRError: See `launch`.
        """
        context = self._context()
        self._function(context, self._chosen(context, record, tactic), record)

    def launch(
        self, record: KernelRecord, tactic: int, image: Sequence[int], tensors: Sequence[int], scratch: int, stream: int
    ) -> None:
        """Queues a layer's kernel; an empty batch queues nothing.

        Args:
            record: The layer.
            tactic: Which tactic, from 1.
            image: Batch, height and width of the first input.
            tensors: Addresses of the inputs in order, then of the output.
            scratch: Address of the scratch memory; not looked at where the kernel takes none.
            stream: Handle of a stream of the current context.

        Raises:
            InputError: The picture has sides that are no multiples of the window, or too many pixels.
            Unsupported: No kernel of the layer is for this GPU, or the driver is too old for its text.
            EnvironmentProblem: The GPU's memory has run out.
            InternalError: The kernel does not load or cannot be launched.
        """
        *inputs, output = tensors
        if len(inputs) != record.inputs:
            raise InternalError(f"{record.layer} was given {len(inputs)} inputs, and its kernel takes {record.inputs}.")
        context = self._context()
        kernel = self._chosen(context, record, tactic)
        function = self._function(context, kernel, record)
        _check_image(image, kernel, record.layer)
        programs = programs_of(kernel, *image)
        if programs == 0:
            return
        _, height, width = counted_sides(kernel.window_size, *image)
        values = (*inputs, height, width, output, *((scratch,) if kernel.scratch else ()))
        pointers = ctypes.c_void_p
        types = (*(pointers for _ in inputs), ctypes.c_int32, ctypes.c_int32, pointers)
        self._must(
            f"launch the kernel of {record.layer}",
            self._cuda.cuLaunchKernel(
                function,
                *(programs, 1, 1),
                *(kernel.threads, 1, 1),
                kernel.shared_bytes,
                stream,
                (values, (*types, *((pointers,) if kernel.scratch else ()))),
                0,
            ),
        )

    def _context(self) -> int:
        """Number of the current context, which no other gets as long as the process lives."""
        (context,) = self._must("tell the current context", self._cuda.cuCtxGetCurrent())
        if not int(context):
            raise InternalError("No CUDA context is current where an engine's plugin is to run.")
        (number,) = self._must("number the current context", self._cuda.cuCtxGetId(context))
        return int(number)

    def _chosen(self, context: int, record: KernelRecord, tactic: int) -> CarriedKernel:
        """The kernel of a tactic that is for this GPU: its own before the common one."""
        capability = self._capability(context)
        found = {kernel.target: kernel for kernel in record.kernels if kernel.tactic == tactic}
        for target in dict.fromkeys((own_instructions(capability), TARGET)):
            if target in found and capability >= target:
                return found[target]
        carried = ", ".join(f"{kernel.target / 10}" for kernel in found.values()) or "none"
        raise Unsupported(
            f"The plan has no kernel of {record.layer} for this GPU, of compute capability {capability / 10}.",
            why=f"Kernels of tactic {tactic} that it carries, by compute capability: {carried}.",
            fix="Build the engine again for this GPU, or with --attention decomposed for one before Ampere.",
        )

    def _capability(self, context: int) -> int:
        """Compute capability, times ten, of the current context's GPU."""
        if context not in self._capabilities:
            cuda, what = self._cuda, "tell the GPU's compute capability"
            (device,) = self._must(what, cuda.cuCtxGetDevice())
            names = cuda.CUdevice_attribute
            ((major,), (minor,)) = (
                self._must(what, cuda.cuDeviceGetAttribute(attribute, device))
                for attribute in (
                    names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                    names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                )
            )
            self._capabilities[context] = 10 * int(major) + int(minor)
        return self._capabilities[context]

    def _function(self, context: int, kernel: CarriedKernel, record: KernelRecord) -> Any:
        """A kernel loaded into the current context."""
        key = (context, kernel)
        if key not in self._functions:
            with self._lock:
                if key not in self._functions:
                    self._functions[key] = self._loaded(kernel, record)
        return self._functions[key]

    def _loaded(self, kernel: CarriedKernel, record: KernelRecord) -> Any:
        cuda = self._cuda
        log = bytearray(LOG_BYTES)
        options = (cuda.CUjit_option.CU_JIT_ERROR_LOG_BUFFER, cuda.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
        loaded = cuda.cuModuleLoadDataEx(kernel.ptx.encode() + b"\0", len(options), list(options), [log, LOG_BYTES])
        spoken = bytes(log).rstrip(b"\0").decode(errors="replace").strip()
        (module,) = self._must(f"load the kernel of {record.layer}", loaded, spoken)
        what = f"find the entry {kernel.entry} of {record.layer}"
        (function,) = self._must(what, cuda.cuModuleGetFunction(module, kernel.entry.encode()))
        if kernel.shared_bytes > MAX_SHARED_BYTES:
            limit = cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            what = f"give the kernel of {record.layer} {kernel.shared_bytes} bytes of shared memory"
            self._must(what, cuda.cuFuncSetAttribute(function, limit, kernel.shared_bytes))
        return function

    def _must(self, what: str, answer: tuple[Any, ...], spoken: str = "") -> tuple[Any, ...]:
        """The results of a call.

        Raises:
            AgileIRError: It failed.
        """
        status, *results = answer
        if status.value:
            raise self._failure(what, status, spoken)
        return tuple(results)

    def _failure(self, what: str, status: Any, spoken: str) -> AgileIRError:
        sentence = f"The NVIDIA driver did not {what}: {self._said(status)}."
        results = self._cuda.CUresult
        if status in (results.CUDA_ERROR_UNSUPPORTED_PTX_VERSION, results.CUDA_ERROR_NO_BINARY_FOR_GPU):
            return Unsupported(
                sentence, why=spoken, fix="Update the driver: the kernels need one of CUDA 12.0 or later."
            )
        if status == results.CUDA_ERROR_OUT_OF_MEMORY:
            return EnvironmentProblem(sentence, fix="Restore smaller tiles, or end other programs that use the GPU.")
        return InternalError(
            sentence, why=spoken, fix="Build the engine again; if that does not help, report it with these lines."
        )

    def _said(self, status: Any) -> str:
        """What a status means."""
        answered, text = self._cuda.cuGetErrorString(status)
        reason = text.decode(errors="replace") if not answered.value and text else "CUDA error"
        return f"{reason} ({status.value})"


def _check_image(image: Sequence[int], kernel: CarriedKernel, layer: str) -> None:
    """Refuses a batch of images that a kernel cannot take.

    Raises:
        InputError: With the sizes.
    """
    batch, height, width = image
    if height % kernel.window_size or width % kernel.window_size:
        raise InputError(
            f"{layer} was given {height}x{width} pixels, and its windows of {kernel.window_size} must fill them.",
            fix="Pad pictures to the multiple that the engine's sidecar names (pad_multiple).",
        )
    if batch * height * width > MAX_PIXELS - (kernel.unit - 1):  # those of the last program are counted, too
        raise InputError(
            f"{layer} was given {batch} images of {height}x{width}, more than {MAX_PIXELS} pixels.",
            fix="Restore fewer at once.",
        )


@functools.cache
def cuda_driver() -> Driver:
    """The process's driver.

    Raises:
        EnvironmentProblem: The binding or the driver is missing.
    """
    try:
        cuda = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise EnvironmentProblem(
            "Engines with plugins of this package need CUDA's Python binding.", why=f"{error}.", fix=INSTALL
        ) from error
    return Driver(cuda)
