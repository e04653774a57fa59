"""What PyTorch's path launches, on Triton's own launcher, and orders that have plugins in Python launch the same."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from triton.runtime.driver import driver

from agileir_export.plugins.catalogue import PLUGINS
from agileir_export.plugins.dispatch import kernel_module, run_kernel
from agileir_export.plugins.half_blocks import Fused, start
from agileir_export.plugins.kernel_records import KernelRecord
from agileir_export.plugins.launch import Launch

from ..plugins.triton_driver import Driver
from .half_block_cases import CASES

STREAM, WORKSPACE = 0xABCD0, 0x7F0000000200

AMPERE = Driver(80)
"""One for all: Triton keeps what it compiled, and what starts it."""


def tensors_of(shapes: Sequence[Sequence[int]], types: Sequence[str]) -> list[torch.Tensor]:
    return [torch.zeros(tuple(shape), dtype=getattr(torch, kind)) for shape, kind in zip(shapes, types, strict=True)]


def launched_by_pytorch(
    operator: str, tensors: Sequence[torch.Tensor], attributes: Any, tactic: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The launch of PyTorch's path, on Triton's own launcher, for a GPU of the kernels' common text."""
    module = kernel_module(operator)
    launch = module.launch([tuple(t.shape) for t in tensors], attributes, str(tensors[0].dtype)[6:], tactic)
    return launched(lambda: run_kernel(operator, tensors, attributes, tactic), tensors, launch, monkeypatch)


def half_block_by_pytorch(
    name: str, tensors: Sequence[torch.Tensor], attributes: Mapping[str, int], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The same of a half block."""
    entry, shapes = PLUGINS[name], [tuple(tensor.shape) for tensor in tensors]
    launch = entry.kernels().launch(shapes, attributes, str(tensors[0].dtype)[6:])
    count, outputs = CASES[name].features, entry.kernels().output_shape(shapes, attributes)[-1]
    fused = Fused(launch, tuple(tensors[count:]))
    return launched(lambda: start(fused, tensors[:count], outputs), tensors, launch, monkeypatch)


def launched(
    work: Callable[[], torch.Tensor], tensors: Sequence[torch.Tensor], launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What is launched where PyTorch does some work on tensors."""
    with monkeypatch.context() as patch:
        patch.setattr(driver, "_active", AMPERE)
        output = work()
    started = AMPERE.started.pop()
    grid, (warps, _, shared, *_), arguments = list(started[:3]), started[5], started[9:]
    order = [name for name in launch.kernel.arg_names if name not in launch.constants]
    given = dict(zip(launch.kernel.arg_names, arguments, strict=True))
    values = [given[name] for name in order]
    assert values[: len(tensors)] == list(tensors), "biases are in row form already"
    assert values[len(tensors) + 2] is output
    return {
        "grid": grid,
        "block": [32 * warps, 1, 1],
        "shared": shared,
        "arguments": [v if isinstance(v, int) else f"{v.data_ptr()}" for v in values],
        "output": output,
        "scratch": 4 * given["scratch"].numel() if launch.scratch else 0,
        "entry": launch.kernel.__name__,
    }


def ordered(
    record: KernelRecord, tensors: Sequence[torch.Tensor], output: torch.Tensor, data: bytes, **more: Any
) -> dict[str, Any]:
    """The order to execute a record on tensors."""
    return {
        "do": "execute",
        "operator": record.operator,
        "layer": record.layer,
        "data": base64.b64encode(data).decode(),
        "shapes": [list(tensor.shape) for tensor in tensors],
        "types": [str(tensor.dtype)[6:] for tensor in tensors],
        "output_shape": list(output.shape),
        "addresses": [tensor.data_ptr() for tensor in (*tensors, output)],
        "workspace": WORKSPACE,
        "stream": STREAM,
    } | more


def assert_equal_launches(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Number by number; the scratch memory is TensorRT's here and PyTorch's there."""
    arguments = [int(argument) for argument in expected["arguments"]]
    if expected["scratch"]:
        arguments[-1] = WORKSPACE
    assert found["arguments"] == arguments
    assert {key: found[key] for key in ("grid", "block", "shared", "entry")} == {
        key: expected[key] for key in ("grid", "block", "shared", "entry")
    }
    assert found["stream"] == STREAM
