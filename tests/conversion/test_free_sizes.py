"""Sizes of networks of libraries: free where that is true at sizes that were not traced, else one fixed size."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from agileir_export.conversion import ConversionRequest, export
from agileir_export.conversion.free_sizes import FIXED_SIDE
from agileir_export.errors import Unsupported
from agileir_export.models import ModelSpec
from agileir_export.models.spandrel.network import SpandrelRestorer


class Toy(nn.Module):
    """A convolution and a step of choice."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution, self.step = nn.Conv2d(3, 3, 3, 1, 1), step

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.step(self.convolution(images))
        return output


def toy(step: Callable[[Tensor], Tensor], multiple: int = 8) -> SpandrelRestorer:
    torch.manual_seed(0)
    spec = ModelSpec("spandrel/Toy", "toy", "restoration", 1, 3, 1, multiple)
    return SpandrelRestorer(spec, Toy(step).eval().requires_grad_(False), lambda net, images: net(images), square=False)


def batch_counted(features: Tensor) -> Tensor:
    """As Swin's code counts pictures: the exporter takes the result for a constant."""
    _, channels, height, width = features.shape
    windows = features.reshape(-1, channels, 8, 8)
    batch = int(windows.shape[0] / (height * width / 8 / 8))
    return windows.reshape(batch, -1, height, width)


def height_kept(features: Tensor) -> Tensor:
    """A ramp over the rows of the traced size."""
    rows = int(features.shape[2])
    return features + torch.linspace(0, 1, rows)[:, None]


def test_what_is_free_stays_free() -> None:
    artifact = export(toy(torch.sigmoid), ConversionRequest())
    assert artifact.fixed_sizes == {} and "fixed_because" not in artifact.provenance


@pytest.mark.parametrize("step", [batch_counted, height_kept])
def test_what_holds_the_traced_size_becomes_fixed(
    step: Callable[[Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "agileir_export"):
        artifact = export(toy(step), ConversionRequest())
    assert artifact.fixed_sizes == {"batch": 1, "height": FIXED_SIDE, "width": FIXED_SIDE}
    assert artifact.provenance["fixed_because"]
    assert (
        f"{FIXED_SIDE}x{FIXED_SIDE} pixels only" in caplog.text and artifact.provenance["fixed_because"] in caplog.text
    )


def test_the_fixed_size_is_a_multiple() -> None:
    assert export(toy(height_kept, 80), ConversionRequest()).fixed_sizes["height"] == 240


def test_a_size_that_is_asked_for_is_taken() -> None:
    artifact = export(toy(height_kept), ConversionRequest(static=(30, 44)))
    assert artifact.fixed_sizes == {"batch": 1, "height": 32, "width": 48}


def test_what_cannot_be_traced_is_refused_in_words() -> None:
    def by_value(features: Tensor) -> Tensor:
        return features if float(features.sum()) > 0 else -features

    with pytest.raises(Unsupported, match="cannot write toy") as caught:
        export(toy(by_value), ConversionRequest())
    assert caught.value.why and "\n" not in caught.value.why
