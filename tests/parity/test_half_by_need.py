"""Half precision of networks of libraries: in float32 stays what was measured to need it, and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.errors import ParityMissed
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.export.floors import FLOORS
from agileir_export.models import ModelSpec
from agileir_export.models.spandrel.network import SpandrelRestorer
from agileir_export.parity import verification_images
from agileir_export.parity.half_by_need import half_by_need
from agileir_export.parity.metrics import psnr


class Toy(nn.Module):
    """Convolutions around a step of choice; the picture itself is added, so that the result is one."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.step = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1), step

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = images + 0.1 * self.last(self.step(self.first(images)))
        return output


def exported(step: Callable[[Tensor], Tensor]) -> OnnxArtifact:
    torch.manual_seed(0)
    spec = ModelSpec("spandrel/Toy", "toy", "restoration", 1, 3, 1, 1)
    net = Toy(step).eval().requires_grad_(False)
    return export_onnx(SpandrelRestorer(spec, net, lambda net, images: net(images), square=False))


def quality(source: OnnxArtifact, half: OnnxArtifact) -> float:
    first, second = OnnxRuntimeRunner(source), OnnxRuntimeRunner(half)
    images = [image.pixels[None] for image in verification_images(source)]
    return min(psnr(first.run(image), second.run(image)) for image in images)


def kept(half: OnnxArtifact) -> dict[str, int]:
    return {each["op"]: each["count"] for each in half.conversion["float32_nodes"]}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_what_half_precision_holds_is_in_half_precision(precision: str) -> None:
    source = exported(torch.relu)
    half = half_by_need(source, precision)
    assert half.precision == precision and kept(half) == {}
    assert quality(source, half) >= FLOORS[precision]


def large(features: Tensor) -> Tensor:
    """Reaches a million, and comes back; no factor can be moved through a sine."""
    return torch.sin(features) * torch.exp(torch.tanh(features * 9) * 14) * 1e-6


def normed(features: Tensor) -> Tensor:
    """A norm written out whose variance is below float16's smallest numbers."""
    small = features * 1e-4
    mean = small.mean(1, keepdim=True)
    return (small - mean) / torch.sqrt((small - mean).pow(2).mean(1, keepdim=True) + 1e-12)


@pytest.mark.parametrize("step", [large, normed])
def test_what_float16_does_not_hold_stays_in_float32(step: Callable[[Tensor], Tensor]) -> None:
    source = exported(step)
    half = half_by_need(source, "float16")
    assert 0 < sum(kept(half).values()) < source.nodes
    assert "Conv" not in kept(half)
    assert quality(source, half) >= FLOORS["float16"]


def test_the_reason_is_in_the_file() -> None:
    half = half_by_need(exported(large), "float16")
    assert any("float16 ends at 65504" in each["reason"] for each in half.conversion["float32_nodes"])


def costly(features: Tensor) -> Tensor:
    """The small difference of large numbers: no range is left, and the digits are lost."""
    return ((features + 3000.0) - 3000.0) * 1.0


def test_costly_parts_are_found_where_ranges_say_nothing() -> None:
    source = exported(costly)
    half = half_by_need(source, "float16")
    assert quality(source, half) >= FLOORS["float16"]
    assert any("costs more" in each["reason"] for each in half.conversion["float32_nodes"])


def test_masks_of_minus_infinity_are_no_obstacle() -> None:
    def masked(features: Tensor) -> Tensor:
        return torch.softmax(features.masked_fill(features < 0, -float("inf")), dim=1)

    source = exported(lambda features: masked(torch.cat([features, features.abs()], 1))[:, :8])
    assert quality(source, half_by_need(source, "float16")) >= FLOORS["float16"]


def test_what_no_part_of_can_be_in_half_precision_is_refused() -> None:
    def everywhere(features: Tensor) -> Tensor:
        for _ in range(40):
            features = costly(features)
        return features

    with pytest.raises(ParityMissed, match="the floor is 60 dB") as caught:
        half_by_need(exported(everywhere), "float16")
    assert "--bf16" in caught.value.fix
