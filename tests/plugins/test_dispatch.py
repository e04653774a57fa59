"""When CUDA tensors get a kernel and when the reference; with a GPU, that both agree."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from agileir_export.plugins import OPERATORS, dispatch
from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
from agileir_export.plugins.launch import NoKernel


class Recorded:
    """Stands for a custom operator: keeps what is registered for it."""

    def __init__(self) -> None:
        self.kernels: dict[str, Callable[..., Any]] = {}

    def _init_fn(self, x: Tensor, y: Tensor, number: int) -> Tensor:
        if x.dtype != y.dtype:
            raise ValueError("reference refuses")
        return x + y + number

    def register_kernel(self, device: str) -> Callable[..., Any]:
        return lambda function: self.kernels.setdefault(device, function)


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(dispatch, "capable", lambda device: True)
    monkeypatch.setattr(dispatch, "multiprocessors", lambda device: 132)
    operator = Recorded()
    entry = SimpleNamespace(torch_name="some_operator", inputs=("x", "y"), attributes=("number",))
    dispatch.register_cuda(operator, entry)  # type: ignore[arg-type]
    assert set(operator.kernels) == {"cuda"}
    return operator.kernels["cuda"]


def test_a_kernel_gets_tensors_and_named_numbers(on_cuda: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "plan_filling", lambda *arguments: "the launch")
    monkeypatch.setattr(dispatch, "start_kernel", lambda *arguments: arguments)
    x, y = torch.ones(2), torch.ones(2)
    name, tensors, numbers, launch = on_cuda(x, y, 7)
    assert name == "some_operator" and tensors[0] is x and tensors[1] is y and numbers == {"number": 7}
    assert launch == "the launch"


def raising(error: Exception) -> Callable[..., Any]:
    def stand_in(*arguments: Any) -> Any:
        raise error

    return stand_in


def test_what_no_kernel_was_made_for_runs_the_reference(
    on_cuda: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "plan_filling", raising(NoKernel("no kernel for this")))
    assert on_cuda(torch.ones(1), torch.ones(1), 3).item() == 5
    with pytest.raises(ValueError, match="reference refuses"):
        on_cuda(torch.ones(1), torch.ones(1).double(), 3)


@pytest.mark.parametrize("step", ["plan_filling", "start_kernel"])
def test_a_mistake_in_planning_and_a_kernel_that_fails_are_not_replaced_in_silence(
    step: str, on_cuda: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "plan_filling", lambda *arguments: "the launch")
    monkeypatch.setattr(dispatch, step, raising(ValueError("too many values to unpack")))
    with pytest.raises(ValueError, match="too many values to unpack"):
        on_cuda(torch.ones(1), torch.ones(1), 3)


def test_tensors_of_two_devices_never_reach_a_kernel(
    on_cuda: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "plan_filling", lambda *arguments: pytest.fail("a kernel was wanted"))
    with pytest.raises(RuntimeError, match="not on the expected device"):
        on_cuda(torch.ones(1), torch.ones(1, device="meta"), 3)


def test_no_kernel_for_tensors_of_different_types() -> None:
    call = next(call for call in CALLS if call.label == "SwinIR light")
    qkv, table = tensors_of(call, torch.float16)
    with pytest.raises(NoKernel, match=r"bias_table in torch\.float16, got torch\.float32"):
        dispatch.plan_kernel(call.operator, [qkv, table.float()], call.attributes)


@pytest.mark.parametrize(
    ("triton", "capability", "capable"),
    [(object(), (8, 0), True), (object(), (12, 0), True), (object(), (7, 5), False), (None, (9, 0), False)],
)
def test_devices_that_cannot_run_kernels_are_named_once(
    monkeypatch: pytest.MonkeyPatch, triton: object, capability: tuple[int, int], capable: bool
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: triton)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU X")
    dispatch.capable.cache_clear()
    try:
        if capable:
            assert dispatch.capable(0)
        else:
            with pytest.warns(RuntimeWarning, match="unfused on CUDA device 0"):
                assert not dispatch.capable(0)
            assert not dispatch.capable(0)
    finally:
        dispatch.capable.cache_clear()


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)
def test_every_operator_has_a_cuda_kernel(operator: Any) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"agileir::{operator.torch_name}", "CUDA")


# ---- on a GPU ----


def tensors_of(call: Any, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    window = call.attributes["window_size"]
    tensors = []
    for index, shape in enumerate(call.shapes(2, 2 * window, 3 * window)):
        if index in call.integer_inputs:
            features = torch.randn(2, 2 * window, 3 * window, 16, generator=generator)
            shift = call.attributes["shift_size"]
            tensors.append(BY_TORCH_NAME["key_semantic_dictionary"].torch_operator()(features, window, shift, window))
        elif call.operator == "key_semantic_dictionary":
            tensors.append(torch.randint(-2, 3, shape, generator=generator).to(dtype))
        else:
            # Weights keep the variance of what they sum over: logits of a hundred would amplify every rounding.
            scale = math.prod(shape[2:]) ** -0.5 if index and len(shape) > 2 else 0.5
            tensors.append((torch.randn(shape, generator=generator) * scale).to(dtype))
    return tensors


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.operator}-{call.label}".replace(" ", "_"))
def test_kernels_agree_with_the_reference_on_a_gpu(call: Any, dtype: torch.dtype) -> None:
    tensors = tensors_of(call, dtype)
    function = BY_TORCH_NAME[call.operator].torch_operator()
    expected = function(*tensors, *call.attributes.values())
    limit = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    for tactic in range(1, len(dispatch.kernel_module(call.operator).TACTICS) + 1):
        on_gpu = [tensor.cuda() for tensor in tensors]
        result = dispatch.run_kernel(call.operator, on_gpu, call.attributes, tactic).cpu()
        if call.operator == "key_semantic_dictionary":
            assert torch.equal(result, expected), f"tactic {tactic}"
        else:
            error = (result.float() - expected.float()).norm() / expected.float().norm()
            assert error <= limit, f"tactic {tactic}"


@pytest.mark.gpu
def test_gradients_on_a_gpu_are_those_of_the_cpu() -> None:
    call = next(call for call in CALLS if call.label == "SwinIR light")
    host = [tensor.requires_grad_() for tensor in tensors_of(call, torch.float32)]
    device = [tensor.detach().cuda().requires_grad_() for tensor in host]
    function = BY_TORCH_NAME["shifted_window_attention"].torch_operator()
    for tensors in (host, device):
        function(*tensors, *call.attributes.values()).square().sum().backward()
    for ours, theirs in zip(device, host, strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_double_precision_on_a_gpu_runs_the_reference() -> None:
    call = next(call for call in CALLS if call.label == "SwinIR light")
    tensors = tensors_of(call, torch.float64)
    function = BY_TORCH_NAME["shifted_window_attention"].torch_operator()
    result = function(*(tensor.cuda() for tensor in tensors), *call.attributes.values())
    torch.testing.assert_close(result.cpu(), function(*tensors, *call.attributes.values()))
