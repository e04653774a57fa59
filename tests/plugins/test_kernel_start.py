"""Kernels started the way they are on a GPU, through Triton's own launcher, up to the driver, which is a stand-in."""

from __future__ import annotations

import pytest
import torch

from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import BY_TORCH_NAME, CALLS
from agileir_export.plugins.dispatch import plan_kernel, run_kernel

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from triton.runtime.driver import driver

from .triton_driver import STREAM, Driver


@pytest.mark.parametrize(
    "call",
    [call for call in CALLS if call.label in ("AgileIR tiny", "SwinIR JPEG", "SemanIR tiny denoising")],
    ids=lambda call: call.operator,
)
def test_a_kernel_is_started_with_its_tensors_on_the_current_stream(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Driver()
    monkeypatch.setattr(driver, "_active", stand_in)
    window = call.attributes["window_size"]
    batch, height, width = 2, 2 * window, 3 * window
    shapes = call.shapes(batch, height, width)
    tensors = [
        torch.zeros(shape, dtype=torch.int32 if index in call.integer_inputs else torch.float16)
        for index, shape in enumerate(shapes)
    ]
    output = run_kernel(call.operator, tensors, call.attributes)
    launch = plan_kernel(call.operator, tensors, call.attributes)
    ((name, binary, _),) = stand_in.loaded
    assert name == launch.kernel.__name__ and binary.startswith(b"\x7fELF")
    ((*start, stream, function, _, _, _, _), *rest) = [started[:9] for started in stand_in.started]
    assert start == [launch.programs * batch * 2 * 3, 1, 1] and (stream, function, rest) == (STREAM, 2, [])
    given = dict(zip(launch.kernel.arg_names, stand_in.started[0][9:], strict=True))
    for name, tensor in zip(BY_TORCH_NAME[call.operator].inputs, tensors, strict=True):
        assert given[name] is tensor or (
            name == "bias_table" and given[name].shape[1:] == (2 * window - 1, window, window)
        )
    assert (given["height"], given["width"]) == (height, width) and given["output"] is output
    assert {name: given[name] for name in launch.constants} == launch.constants
    assert not launch.scratch or given["scratch"].numel() == batch * 2 * 3 * launch.scratch


def test_nothing_is_started_for_an_empty_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = Driver()
    monkeypatch.setattr(driver, "_active", stand_in)
    call = next(call for call in CALLS if call.label == "SwinIR JPEG")
    output = run_kernel(call.operator, [torch.zeros(shape) for shape in call.shapes(0, 7, 14)], call.attributes)
    assert output.shape == (0, 7, 14, call.channels) and stand_in.started == stand_in.loaded == []
