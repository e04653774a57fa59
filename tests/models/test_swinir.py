"""SwinIR in its released layout: an independent forward agrees with ours, files load unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from agileir_export.errors import CheckpointError, Unsupported
from agileir_export.models import load_model

from . import naive
from .naive import random_images

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

SMALL: dict[str, Any] = {"embed_dim": 24, "depths": (2, 3), "num_heads": (3, 2), "window_size": 8}
FOUR = {**SMALL, "window_size": 4}
SHUFFLE, DIRECT, NEAREST = ({"upsampler": name} for name in ("pixelshuffle", "pixelshuffledirect", "nearest+conv"))
CLEAN = {**SMALL, "upsampler": "", "scale": 1}
JPEG = {**CLEAN, "window_size": 7, "img_range": 255.0}
KINDS = {
    "classical-x2": {**SMALL, **SHUFFLE, "scale": 2},
    "classical-x3": {**FOUR, **SHUFFLE, "scale": 3},
    "classical-x4": {**FOUR, **SHUFFLE, "scale": 4},
    "classical-x8": {**FOUR, **SHUFFLE, "scale": 8},
    "lightweight-x2": {**SMALL, **DIRECT, "scale": 2},
    "lightweight-x3": {**FOUR, **DIRECT, "scale": 3},
    "denoise-colour": CLEAN,
    "denoise-grey": {**CLEAN, "channels": 1},
    "jpeg-colour": JPEG,
    "jpeg-grey": {**JPEG, "channels": 1},
    "real-x2": {**FOUR, **NEAREST, "scale": 2},
    "real-x4": {**FOUR, **NEAREST, "scale": 4},
    "real-large-x4": {**FOUR, **NEAREST, "scale": 4, "resi_connection": "3conv"},
    "real-x8": {**FOUR, **NEAREST, "scale": 8},
    "diffbir": {**FOUR, **NEAREST, "scale": 1, "unshuffle": 8},
    "keeps-size": {**FOUR, **SHUFFLE, "scale": 1},
    "unshuffled-x2": {**FOUR, **SHUFFLE, "scale": 2, "unshuffle": 2},
    "unshuffled-grey": {**SMALL, **SHUFFLE, "scale": 2, "unshuffle": 2, "channels": 1},
    "unshuffled-light": {**FOUR, **DIRECT, "scale": 2, "unshuffle": 2},
}


def reference(state: naive.State, images: Tensor, kind: dict[str, Any]) -> Tensor:
    """The naive forward in double precision."""
    doubles, w = naive.doubles(state), kind["window_size"]
    attention, multiple = naive.swin_attention(doubles, w), w * kind.get("unshuffle", 1)
    return naive.columnar(doubles, images.double(), attention=attention, multiple=multiple, **kind)


@pytest.mark.parametrize("name", KINDS)
def test_the_released_layout_loads_unchanged_and_agrees(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    channels, w = kind.get("channels", 3), kind["window_size"]
    state = naive.official_state(**kind)
    assert any(key.endswith("attn_mask") for key in state)
    assert any(key.endswith("relative_position_index") for key in state)
    torch.save({"params": state}, tmp_path / "official.pth")
    network = load_model(tmp_path / "official.pth")

    spec = network.spec
    assert (spec.family, spec.scale, spec.channels) == ("swinir", kind["scale"], channels)
    assert (spec.window_size, spec.pad_multiple) == (w, w * kind.get("unshuffle", 1))
    assert spec.img_range == kind.get("img_range", 1.0)
    enlarges = kind["upsampler"] and kind["scale"] > 1
    wanted = (
        "super-resolution" if enlarges else "restoration" if kind["upsampler"] else "denoising" if w == 8 else "jpeg"
    )
    assert spec.task == wanted
    # a single window, the size of the buffers, several windows, a size that needs padding
    for height, width in ((w, w), (2 * w, 2 * w), (3 * w, 2 * w), (2 * w - 3, w + 1)):
        images = random_images(2, channels, height, width)
        expected = reference(state, images, kind)
        output = network(images)
        assert output.shape == (2, channels, kind["scale"] * height, kind["scale"] * width)
        torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.05


def test_a_head_that_makes_the_picture_smaller_is_not_supported(tmp_path: Path) -> None:
    state = naive.official_state(**KINDS["classical-x2"])
    state["conv_first.1.bias"] = state.pop("conv_first.bias")
    del state["conv_first.weight"]
    for channels, kind, part in ((3 * 64, Unsupported, "by 8"), (50, CheckpointError, "50 channels")):
        torch.save({**state, "conv_first.1.weight": torch.zeros(24, channels, 3, 3)}, tmp_path / "a.pth")
        with pytest.raises(kind, match=part) as caught:
            load_model(tmp_path / "a.pth")
        assert "a.pth" in caught.value.what and "incomplete" not in str(caught.value)


def test_the_shift_and_the_position_bias_are_in_the_reference(tmp_path: Path) -> None:
    # a reference that ignored them would not notice a network that does
    kind = KINDS["lightweight-x2"]
    state = naive.official_state(**kind)
    images = random_images(1, 3, 16, 16)
    expected = reference(state, images, kind)
    for suffix in ("relative_position_bias_table", "relative_position_index"):
        changed = {k: v * 0 if k.endswith(suffix) else v for k, v in state.items()}
        assert (reference(changed, images, kind) - expected).abs().max() > 1e-3
    moved = reference(state, images.roll((3, 3), (2, 3)), kind).roll((-6, -6), (2, 3))
    assert (moved - expected).abs().max() > 1e-3


def wrappings(state: naive.State) -> dict[str, object]:
    prefixed = {f"module.{key}": value for key, value in state.items()}
    bad = {key: torch.zeros_like(value) for key, value in state.items()}
    return {
        "bare": state,
        "params": {"params": state},
        "params_ema": {"params": bad, "params_ema": state},
        "state_dict": {"state_dict": prefixed, "epoch": 3, "optimizer": {"lr": 1e-4}},
        "model": {"model": state, "iteration": 5},
        "module": prefixed,
        "nested": {"state_dict": {"params": prefixed}},
        "empty-wrapper": {"params_ema": None, "params": state},
    }


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".PTH"])
@pytest.mark.parametrize("wrapping", wrappings({}))
def test_wrapped_state_dicts_load(suffix: str, wrapping: str, tmp_path: Path) -> None:
    kind = {**KINDS["classical-x2"], "depths": (2,), "num_heads": (2,), "window_size": 4}
    state = naive.official_state(**kind)
    path = tmp_path / f"weights{suffix}"
    torch.save(wrappings(state)[wrapping], path)
    loaded = load_model(path).state_dict()
    assert set(loaded) == {k for k in state if not k.endswith(("attn_mask", "position_index"))}
    for key, value in loaded.items():
        assert torch.equal(value, state[key])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_load(prefix: str, tmp_path: Path) -> None:
    kind = {**KINDS["jpeg-grey"], "depths": (2,), "num_heads": (2,)}
    state = naive.official_state(**kind)
    named = {prefix + key: value.clone() for key, value in state.items()}
    safetensors.torch.save_file(named, tmp_path / "weights.safetensors")
    network = load_model(str(tmp_path / "weights.safetensors"))
    images = random_images(1, 1, 14, 7)
    expected = reference(state, images, kind)
    torch.testing.assert_close(network(images).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype, legacy: bool, tmp_path: Path) -> None:
    kind = {**KINDS["lightweight-x2"], "depths": (2,), "num_heads": (2,), "window_size": 4}
    full = naive.official_state(**kind)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in full.items()}
    path = tmp_path / "weights.pth"
    torch.save({"params_ema": state}, path, _use_new_zipfile_serialization=not legacy)
    network = load_model(path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.training
    images = random_images(1, 3, 8, 8)
    expected = reference(state, images, kind)
    torch.testing.assert_close(network(images).double(), expected, rtol=0, atol=1e-5)


def test_a_preset_is_recognised_by_its_shapes(tmp_path: Path) -> None:
    kind = {"embed_dim": 60, "depths": (6,) * 4, "num_heads": (6,) * 4, "window_size": 8}
    state = naive.official_state(**kind, upsampler="pixelshuffledirect", scale=4)
    torch.save(state, tmp_path / "light.pth")
    assert load_model(tmp_path / "light.pth").spec.name == "swinir_light_x4"
    named = load_model("swinir_light_x4", weights=tmp_path / "light.pth")
    for key, value in named.state_dict().items():
        assert torch.equal(value, state[key])


def test_other_shapes_are_custom(tmp_path: Path) -> None:
    torch.save(naive.official_state(**KINDS["real-x4"]), tmp_path / "small.pth")
    assert load_model(tmp_path / "small.pth").spec.name == "custom"
