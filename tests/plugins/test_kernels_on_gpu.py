"""What kernels do on a real GPU beyond computing right: large images, streams, graphs, whole models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from agileir_export.export.floors import AGREEMENT_FLOORS, FLOORS, own_dictionary_floor
from agileir_export.models import load_model
from agileir_export.models.semanir.attention import SemanticStage
from agileir_export.parity.metrics import psnr
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
from agileir_export.plugins.packing import unpack

pytestmark = pytest.mark.gpu

LARGE = 4096
"""Width of the images that have more than 2^31 elements."""


def call_of(label: str, operator: str) -> Call:
    return next(call for call in CALLS if (call.label, call.operator) == (label, operator))


ONE_AN_OPERATOR = (
    call_of("AgileIR", "group_shifted_window_attention"),
    call_of("SwinIR", "shifted_window_attention"),
    call_of("SemanIR", "key_semantic_dictionary"),
    call_of("SemanIR", "key_semantic_attention"),
)


def inputs(call: Call, height: int, width: int) -> list[Tensor]:
    """Random float16 tensors on the GPU; a dictionary in which every row holds a token."""
    generator = torch.Generator("cuda").manual_seed(0)
    return [
        torch.randint(1, 2**16, shape, generator=generator, device="cuda", dtype=torch.int32)
        if index in call.integer_inputs
        else torch.randn(shape, generator=generator, device="cuda", dtype=torch.float16) * 0.3
        for index, shape in enumerate(call.shapes(1, height, width))
    ]


def run(call: Call, tensors: list[Tensor], **changes: int) -> Tensor:
    attributes = dict(call.attributes) | changes
    return BY_TORCH_NAME[call.operator].torch_operator()(*tensors, *attributes.values())


@pytest.mark.parametrize("call", ONE_AN_OPERATOR, ids=lambda call: call.operator)
def test_images_of_more_than_two_to_the_31_elements(call: Call) -> None:
    """Without a shift, the last row of windows is computed as if it were alone."""
    free, _ = torch.cuda.mem_get_info()
    if free < 24 * 2**30:
        pytest.skip("needs 24 GiB of free GPU memory")
    window = call.attributes["window_size"]
    channels = call.shapes(1, window, window)[0][-1]
    height = -(-(2**31) // (LARGE * channels * window)) * window + window
    tensors = inputs(call, height, LARGE)
    assert tensors[0].numel() > 2**31
    with torch.inference_mode():
        whole = run(call, tensors, shift_size=0)
        across = LARGE // window
        alone = [tensors[0][:, -window:].contiguous(), *tensors[1:]]
        for index in call.integer_inputs:
            alone[index] = tensors[index][-across:].contiguous()
        last = run(call, alone, shift_size=0)
    whole = whole[-across:] if call.operator == "key_semantic_dictionary" else whole[:, -window:]
    assert torch.equal(whole, last) and last.any()


@pytest.mark.parametrize("call", ONE_AN_OPERATOR, ids=lambda call: call.operator)
def test_a_kernel_runs_on_the_current_stream_on_any_layout(call: Call) -> None:
    window = call.attributes["window_size"]
    tensors = inputs(call, 4 * window, 6 * window)
    expected = run(call, tensors)
    turned = [tensors[0].transpose(1, 3).contiguous().transpose(1, 3), *tensors[1:]]
    assert not turned[0].is_contiguous()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.inference_mode():
        torch.cuda._sleep(50_000_000)  # what is queued on another stream would overtake this
        turned[0] = turned[0] * 2 / 2
        result = run(call, turned)
    stream.synchronize()
    assert torch.equal(result, expected)


@pytest.mark.parametrize("call", ONE_AN_OPERATOR, ids=lambda call: call.operator)
def test_a_kernel_is_captured_into_a_graph(call: Call) -> None:
    window = call.attributes["window_size"]
    tensors = inputs(call, 2 * window, 2 * window)
    with torch.inference_mode():
        run(call, tensors)  # compiled and loaded before the capture, as always
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run(call, tensors)
        for factor in (-0.5, 3.0):
            tensors[0].mul_(factor)
            graph.replay()
            torch.cuda.synchronize()
            assert torch.equal(result, run(call, tensors))


OWN_FLOOR = 60.0
"""dB that a model reaches in float32 where another processor chooses its keys.

A GPU's convolutions and products add in another order than a CPU's. Similarities that are equal up to rounding then
change places, and each exchanged key moves its token: 74.7 dB on an H100, with the same dictionary above 100. What the
choice itself must reach is the ladder's agreement.
"""


class Dictionaries:
    """Takes down the dictionaries of a model's stages, and gives them to the same stages later.

    Args:
        model: The model; its stages are changed.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.stages = [module for module in model.modules() if isinstance(module, SemanticStage)]
        self.seen: list[Tensor] = []
        self.given: list[Tensor] = []
        for stage in self.stages:
            stage.context = self._wrapped(stage.context)  # type: ignore[method-assign]

    def _wrapped(self, choose: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        def context(x: Tensor) -> tuple[Tensor, ...]:
            (chosen,) = (self.given.pop(0).to(x.device),) if self.given else choose(x)
            self.seen.append(chosen.cpu())
            return (chosen,)

        return context

    def take(self) -> list[Tensor]:
        """Those seen since the last call."""
        seen, self.seen = self.seen, []
        return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["agileir_tiny_x2", "semanir_tiny_x2", "semanir_tiny_dn25"])
def test_a_trained_model_restores_on_the_gpu_what_it_restores_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    model: Any = load_model(name).eval()
    dictionaries = Dictionaries(model)
    images = torch.rand(2, model.spec.channels, 72, 104, generator=torch.Generator().manual_seed(0))
    precision = str(dtype).removeprefix("torch.")

    def result() -> Tensor:
        output: Tensor = model.to("cuda", dtype)(images.to("cuda", dtype))
        return output.float().cpu()

    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = model(images)
        chosen = dictionaries.take()
        own = result()
        own_choice = dictionaries.take()
        dictionaries.given = list(chosen)
        same = result()
    assert psnr(expected.numpy(), same.numpy()) >= FLOORS[precision]
    if not dictionaries.stages:
        assert torch.equal(own, same)
        return
    assert psnr(expected.numpy(), own.numpy()) >= min(OWN_FLOOR, own_dictionary_floor(precision))
    for ours, theirs in zip(own_choice, chosen, strict=True):
        common = unpack(ours & theirs, ours.shape[1]).sum() / unpack(theirs, ours.shape[1]).sum()
        assert common >= AGREEMENT_FLOORS[precision]
