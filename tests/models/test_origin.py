"""What weights do not hold: guessed aloud, chosen by an option, listed; and what a model remembers of its source."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from agileir_export.errors import InputError
from agileir_export.models import LoadOptions, load_model, randomise
from agileir_export.models.origin import Origin

from ..export.networks import SHAPES, build
from .checkpoints import saved, state_of, write

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

X1 = {"upsampler": "", "scale": 1}
IMAGES = torch.rand(1, 1, 14, 21, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("img_range", [1, 255, 2.0])
@pytest.mark.parametrize("window", [4, 7])
def test_a_range_that_was_trained_can_be_told(img_range: float, window: int, tmp_path: Path) -> None:
    trained = build("swinir-jpeg", window_size=window, img_range=float(img_range))
    path = write(tmp_path, saved(trained.state_dict()))
    told = load_model(path, img_range=img_range)
    assert told.spec.img_range == img_range
    assert torch.equal(told(IMAGES), trained(IMAGES))
    guessed = 255 if window == 7 else 1
    assert (guessed == img_range) == torch.equal(load_model(path)(IMAGES), trained(IMAGES))


@pytest.mark.parametrize("kind", ["agileir", "semanir", "semanir-unet", "swinir-light"])
def test_every_family_takes_a_range(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, saved(state_of(kind)))
    images = torch.rand(1, SHAPES[kind].get("channels", 3), 8, 8)
    outputs = [load_model(path, img_range=value)(images) for value in (None, 1, 255)]
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[1], outputs[2], atol=1e-3)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_range_is_a_number_above_zero(value: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        LoadOptions(img_range=value)


def messages(caplog: pytest.LogCaptureFixture, state: Any, folder: Path, **options: Any) -> list[str]:
    """What loading warns of."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "agileir_export"):
        load_model(write(folder, saved(state)), **options)
    return caplog.messages


def test_a_guess_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jpeg = state_of("swinir-jpeg")
    (said,) = messages(caplog, jpeg, tmp_path)
    for part in ("weights.pth", "in 0..255 ", "window 7 without an up-sampler", "JPEG", "--img-range"):
        assert part in said
    keeps_size = dict(build("swinir-light", **X1).state_dict())  # 1, but it may have been another
    (said,) = messages(caplog, keeps_size, tmp_path)
    assert "in 0..1 " in said
    assert not messages(caplog, jpeg, tmp_path, img_range=255)
    assert not messages(caplog, keeps_size, tmp_path, img_range=1)
    for kind in ("swinir-light", "agileir", "semanir"):
        assert not messages(caplog, state_of(kind), tmp_path)


def test_a_file_that_says_its_preset_leaves_nothing_to_guess(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agileir_export.models import FAMILIES

    shape = {name: value for name, value in SHAPES["swinir-jpeg"].items() if name != "family"}
    monkeypatch.setitem(FAMILIES["swinir"].presets, "swinir_small_jpeg", shape)  # type: ignore[index]
    path = tmp_path / "a.safetensors"
    for metadata, count in ((None, 1), ({"agileir": '{"preset": "swinir_small_jpeg"}'}, 0)):
        safetensors.torch.save_file(state_of("swinir-jpeg"), path, metadata=metadata)
        caplog.clear()
        assert load_model(path).spec.name == "swinir_small_jpeg"
        assert len(caplog.messages) == count


@pytest.mark.parametrize("kind", ["agileir", "semanir", "semanir-unet", "swinir-light", "swinir-jpeg"])
def test_everything_is_listed_as_read_or_assumed(kind: str, tmp_path: Path) -> None:
    model = load_model(write(tmp_path, saved({"params_ema": state_of(kind), "params": state_of(kind)})))
    origin = model.origin
    assert origin is not None and (origin.branch, origin.left_out) == ("params_ema", ("params",))
    assert {"img_range", "task", "mean", "shift_size"} <= origin.assumed.keys()
    assert not origin.read.keys() & origin.assumed.keys()
    assert all(fact.why for fact in origin.assumed.values())
    for name, value in origin.read.items():
        assert SHAPES[kind].get(name, value) == value, name
    for name in ("img_range", "task"):
        assert origin.assumed[name].value == getattr(model.spec, name)
    assert ("attention" in origin.assumed) == (kind == "agileir")
    assert ("jpeg" in kind) == ("JPEG models" in origin.assumed["img_range"].why)


def test_what_was_asked_for_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path, saved(state_of("swinir-jpeg")))
    origin = load_model(path, img_range=1).origin
    assert origin is not None
    assert (origin.assumed["img_range"].value, origin.assumed["img_range"].why) == (1.0, "as asked for")
    assert origin.to_json() == {"model": "weights.pth", "img_range": 1.0}


def test_the_source_is_remembered_until_other_weights_are_drawn() -> None:
    model = load_model("agileir_tiny_x2")
    assert model.origin == Origin("agileir_tiny_x2")
    randomise(model, 0)
    assert model.origin is None
    drawn = load_model("semanir_tiny_x2", random_weights=3, top_k=5).origin
    assert drawn is not None
    assert drawn.to_json() == {"model": "semanir_tiny_x2", "random_weights": 3, "top_k": 5}
