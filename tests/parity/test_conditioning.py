"""Networks that amplify rounding: the floor of their float32 files is what their own rounding leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from agileir_export.export import export_onnx
from agileir_export.models import ModelSpec
from agileir_export.models.spandrel.network import SpandrelRestorer
from agileir_export.parity import verification_images, verify
from agileir_export.parity.conditioning import conditioned_floor, own_rounding


class Waves(nn.Module):
    """Every wave multiplies differences by twenty."""

    def __init__(self, waves: int) -> None:
        super().__init__()
        self.first, self.last, self.waves = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1), waves

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        for _ in range(self.waves):
            features = torch.sin(20 * features)
        output: Tensor = images + 0.1 * self.last(features)
        return output


@pytest.fixture(scope="module")
def toy() -> Callable[[int], SpandrelRestorer]:
    def made(waves: int) -> SpandrelRestorer:
        torch.manual_seed(0)
        spec = ModelSpec("spandrel/Toy", "toy", "restoration", 1, 3, 1, 1)
        net = Waves(waves).eval().requires_grad_(False)
        return SpandrelRestorer(spec, net, lambda net, images: net(images), square=False)

    return made


def test_the_floor_is_between_those_of_float16_and_float32() -> None:
    assert [conditioned_floor(own) for own in (150.0, 106.0, 90.04, 70.0, 66.0, 20.0, -float("inf"))] == [
        100.0, 100.0, 84.0, 64.0, 60.0, 60.0, 60.0,
    ]  # fmt: skip


def test_a_network_is_measured_against_float64(toy: Callable[[int], SpandrelRestorer]) -> None:
    exact, worse = toy(1), toy(4)
    pictures = [image.pixels[None] for image in verification_images(export_onnx(exact))]
    found = []
    for model in (exact, worse):
        with torch.no_grad():
            restored = [model(torch.from_numpy(picture)).numpy() for picture in pictures]
        found.append(own_rounding(model, pictures, restored))
        assert next(model.parameters()).dtype == torch.float32
    assert found[0] is not None and found[1] is not None
    assert found[0] > 110 > 90 > found[1]


def test_what_the_network_itself_does_not_reach_is_not_asked_of_its_file(
    toy: Callable[[int], SpandrelRestorer],
) -> None:
    model = toy(4)
    rung = next(each for each in verify(model, export_onnx(model)).rungs if each.name == "ONNX float32 = PyTorch")
    assert rung.passed and 60 <= rung.floor < 100 and "float64" in rung.note


def test_a_network_that_agrees_with_nothing_is_not_passed(toy: Callable[[int], SpandrelRestorer]) -> None:
    model = toy(9)
    rung = next(each for each in verify(model, export_onnx(model)).rungs if each.name == "ONNX float32 = PyTorch")
    assert not rung.passed and rung.floor == 60


def test_a_floor_that_is_given_stays(toy: Callable[[int], SpandrelRestorer]) -> None:
    model = toy(4)
    report = verify(model, export_onnx(model), min_psnr=100.0)
    assert not report.passed
