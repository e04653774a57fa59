"""``torch.ops.agileir.*`` on CUDA tensors: the Triton kernels, or the reference where they do not apply."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch._library.custom_ops import CustomOpDef

__all__ = ["kernel_module", "register_cuda", "run_kernel"]

OLDEST_CAPABILITY = (8, 0)
"""The kernels use tensor-core instructions (bfloat16, TF32) that came with Ampere."""


def kernel_module(torch_name: str) -> ModuleType:
    """``kernel.py`` of an operator; needs Triton."""
    return importlib.import_module(f".{torch_name}.kernel", __package__)


def run_kernel(torch_name: str, tensors: Sequence[Tensor], attributes: Mapping[str, int], tactic: int = 1) -> Tensor:
    """Runs an operator's kernel.

    Args:
        torch_name: Such as ``"shifted_window_attention"``.
        tensors: The operator's tensors in order, on one CUDA device (or on the CPU under Triton's interpreter).
        attributes: Its integer arguments by name.
        tactic: Which of the kernel's tactics, from 1.

    Returns:
        The operator's output.

    Raises:
        ValueError: The kernel was not made for these shapes or types; nothing was started.
    """
    module = kernel_module(torch_name)
    image = tensors[0]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    dtype = str(image.dtype).removeprefix("torch.")
    launch = module.launch(shapes, attributes, dtype, tactic)
    output_type = getattr(torch, module.OUTPUT_TYPE or dtype)
    output = image.new_empty(module.output_shape(shapes, attributes), dtype=output_type)
    if output.numel() == 0:
        return output
    batch, height, width, _ = image.shape
    with torch.cuda.device_of(image):
        launch.kernel[(launch.grid(batch, height, width),)](
            *(tensor.contiguous() for tensor in tensors),
            height,
            width,
            output,
            **launch.constants,
            num_warps=launch.num_warps,
            num_stages=launch.num_stages,
            enable_fp_fusion=True,
        )
    return output


@cache
def _capable(device: int) -> bool:
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


def register_cuda(operator: CustomOpDef, torch_name: str, attributes: Sequence[str]) -> None:
    """Makes an operator run its kernel for CUDA tensors.

    What no kernel was made for (float64, very large windows, GPUs before Ampere) runs the reference, which also
    refuses what is wrong. Gradients stay those of the operator: the reference, recomputed.

    Args:
        operator: The custom operator.
        torch_name: Its name, which is also its folder's.
        attributes: Names of its integer arguments, which follow the tensors.
    """
    reference = operator._init_fn
    count = len(attributes)

    def on_cuda(*arguments: Any) -> Tensor:
        tensors, numbers = arguments[:-count], arguments[-count:]
        same_device = all(tensor.device == tensors[0].device for tensor in tensors)
        if same_device and _capable(tensors[0].device.index):
            try:
                return run_kernel(torch_name, tensors, dict(zip(attributes, numbers, strict=True)))
            except ValueError:
                pass
        result: Tensor = reference(*arguments)
        return result

    operator.register_kernel("cuda")(on_cuda)
