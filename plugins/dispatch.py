"""The torch operators on CUDA tensors: the Triton kernels, or the reference where they do not apply."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .bias_rows import bias_rows, rows_shape
from .catalogue import BY_TORCH_NAME
from .launch import Launch, NoKernel, filling
from .registry import Operator

if TYPE_CHECKING:
    from torch._library.custom_ops import CustomOpDef

__all__ = [
    "BIAS_TABLE",
    "capable",
    "kernel_module",
    "plan_filling",
    "plan_kernel",
    "register_cuda",
    "rows_of",
    "run_kernel",
    "start_kernel",
    "type_name",
]

BIAS_TABLE = "bias_table"
"""The input, always the last, that the kernels take in row form."""

_rows: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

OLDEST_CAPABILITY = (8, 0)
"""The kernels use tensor-core instructions (bfloat16, TF32) that came with Ampere."""


def kernel_module(torch_name: str) -> ModuleType:
    """``kernel.py`` of an operator; needs Triton."""
    module: ModuleType = BY_TORCH_NAME[torch_name].kernels()
    return module


def plan_kernel(torch_name: str, tensors: Sequence[Tensor], attributes: Mapping[str, int], tactic: int = 1) -> Launch:
    """How an operator's kernel is started for these tensors; nothing is compiled or started yet.

    Args:
        torch_name: The operator's name under ``torch.ops``.
        tensors: The operator's tensors in order.
        attributes: Its integer arguments by name.
        tactic: Which of the kernel's tactics, from 1.

    Raises:
        NoKernel: The kernel was not made for these shapes or types.
    """
    operator = BY_TORCH_NAME[torch_name]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if BIAS_TABLE in operator.inputs and shapes[-1][0] == (2 * attributes["window_size"] - 1) ** 2:
        shapes[-1] = rows_shape(shapes[-1], attributes["window_size"])  # other shapes are refused below
    launch: Launch = kernel_module(torch_name).launch(shapes, attributes, type_name(tensors[0]), tactic)
    for name, tensor in zip(operator.inputs, tensors, strict=True):
        wanted = torch.int32 if name in operator.integer_tensors else tensors[0].dtype
        if tensor.dtype != wanted:
            raise NoKernel(f"{torch_name}: the kernel takes {name} in {wanted}, got {tensor.dtype}")
    return launch


def plan_filling(
    torch_name: str, tensors: Sequence[Tensor], attributes: Mapping[str, int], multiprocessors: int
) -> Launch:
    """`plan_kernel` with the tactic for the size of the image: one that leaves no multiprocessor idle, if there is one.

    Args:
        torch_name: The operator's name under ``torch.ops``.
        tensors: The operator's tensors in order.
        attributes: Its integer arguments by name.
        multiprocessors: Of the GPU.

    Raises:
        NoKernel: The kernel was not made for these shapes or types.
    """
    tactics = range(1, len(kernel_module(torch_name).TACTICS) + 1)
    launches = (plan_kernel(torch_name, tensors, attributes, tactic) for tactic in tactics)
    batch, height, width = (int(size) for size in tensors[0].shape[:3])
    return filling(launches, batch, height, width, multiprocessors)


def start_kernel(torch_name: str, tensors: Sequence[Tensor], attributes: Mapping[str, int], launch: Launch) -> Tensor:
    """Starts an operator's kernel on PyTorch's current stream of the tensors' device.

    Args:
        torch_name: The operator's name under ``torch.ops``.
        tensors: The operator's tensors in order, on one CUDA device (or on the CPU under Triton's interpreter).
        attributes: Its integer arguments by name.
        launch: What `plan_kernel` answered for them.

    Returns:
        The operator's output.
    """
    module = kernel_module(torch_name)
    image = tensors[0]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    output_type = getattr(torch, module.OUTPUT_TYPE or type_name(image))
    output = image.new_empty(module.output_shape(shapes, attributes), dtype=output_type)
    if output.numel() == 0:
        return output
    batch, height, width, _ = image.shape
    with torch.cuda.device_of(image):
        given = [tensor.contiguous() for tensor in tensors]
        if launch.key_width:
            given[-1] = rows_of(tensors[-1], launch)
        size = launch.windows(batch, height, width) * launch.scratch
        scratch = [image.new_empty(size, dtype=torch.float32)] if size else []
        launch.kernel[(launch.grid(batch, height, width),)](
            *given,
            height,
            width,
            output,
            *scratch,
            **launch.constants,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
            enable_fp_fusion=True,
        )
    return output


def rows_of(table: Tensor, launch: Launch) -> Tensor:
    """The row form of a table of position biases: made once for a table that stays as it is, and kept beside it."""
    if table.dim() != 2:
        return table.contiguous()
    state = None
    if not table.is_inference():  # which count their versions; what does not may change unseen
        state = table._version, table.data_ptr(), table.dtype, launch.window_size, launch.key_width
        kept: tuple[Any, Tensor] | None = _rows.get(table)
        if kept is not None and kept[0] == state:
            return kept[1]
    with torch.no_grad():
        rows = bias_rows(table.float(), launch.window_size, launch.key_width).to(table.dtype).contiguous()
    if state is not None:
        _rows[table] = state, rows
    return rows


def run_kernel(torch_name: str, tensors: Sequence[Tensor], attributes: Mapping[str, int], tactic: int = 1) -> Tensor:
    """`plan_kernel`, then `start_kernel`.

    Raises:
        NoKernel: The kernel was not made for these shapes or types; nothing was started.
    """
    return start_kernel(torch_name, tensors, attributes, plan_kernel(torch_name, tensors, attributes, tactic))


def type_name(tensor: Tensor) -> str:
    """A tensor's type as the kernels name it, such as ``"float16"``."""
    return str(tensor.dtype).removeprefix("torch.")


@cache
def capable(device: int) -> bool:
    """Whether kernels can run on a CUDA device; says once where they cannot."""
    if importlib.util.find_spec("triton") is None:
        why = "Triton is not installed"
    elif torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        why = f"{torch.cuda.get_device_name(device)} is older than Ampere"
    else:
        return True
    warnings.warn(
        f"agileir operators run unfused on CUDA device {device}, slower and with more memory: {why}",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


@cache
def multiprocessors(device: int) -> int:
    """Multiprocessors of a CUDA device."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def register_cuda(operator: CustomOpDef, entry: Operator) -> None:
    """Makes an operator run its kernel for CUDA tensors.

    What no kernel was made for (float64, very large windows, GPUs before Ampere) runs the reference, which also
    refuses what is wrong. Gradients stay those of the operator: the reference, recomputed.

    Args:
        operator: The custom operator.
        entry: Its entry; the integer arguments follow the tensors.
    """
    reference = operator._init_fn
    torch_name, attributes = entry.torch_name, entry.attributes
    count = len(entry.inputs)

    def on_cuda(*arguments: Any) -> Tensor:
        tensors, numbers = arguments[:count], arguments[count:]
        same_device = all(tensor.device == tensors[0].device for tensor in tensors)
        named = dict(zip(attributes, numbers, strict=True))
        launch: Launch | None = None
        if same_device and capable(tensors[0].device.index):
            with contextlib.suppress(NoKernel):
                launch = plan_filling(torch_name, tensors, named, multiprocessors(tensors[0].device.index))
        if launch is not None:  # from here on, an error is an error: no kernel is replaced in silence
            return start_kernel(torch_name, tensors, named, launch)
        result: Tensor = reference(*arguments)
        return result

    operator.register_kernel("cuda")(on_cuda)
