"""SemanIR: dictionaries and shifts by stage, top_k, position bias, the U-shaped network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import agileir_export.models.semanir.attention as semanir
from agileir_export.errors import CheckpointError, InputError
from agileir_export.models import fold, load_model, set_top_k, use_operators
from agileir_export.plugins.shifted_window_attention.operator import shifted_window_attention

from ..export.networks import build
from . import naive
from .naive import random_images

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")


def stages(network: torch.nn.Module) -> list[semanir.SemanticStage]:
    return [m for m in network.modules() if isinstance(m, semanir.SemanticStage)]


# ---- formula ----


@pytest.mark.parametrize("top_k", [1, 5, 16, 99])
@pytest.mark.parametrize("size", [(8, 12), (4, 4), (6, 3)])
def test_the_columnar_network_is_the_formula(size: tuple[int, int], top_k: int) -> None:
    network = build("semanir", top_k=top_k)
    state, images = naive.doubles(network.state_dict()), random_images(2, 3, *size)
    attention = naive.semantic_attention(state, 4, top_k)
    how: dict[str, Any] = {"depths": (1, 2), "multiple": 4, "upsampler": "pixelshuffle", "scale": 3}
    expected = naive.columnar(state, images.double(), attention=attention, **how)
    torch.testing.assert_close(network(images).double(), expected, rtol=0, atol=1e-5)


def unet_reference(state: naive.State, images: Tensor, top_k: int) -> Tensor:
    """Three levels, one channel; odd encoders and even decoders are shifted."""
    height, width = images.shape[-2:]

    def shifted(name: str) -> bool:
        return name in ("encoder.1", "decoder.0")

    attention = naive.semantic_attention(state, 4, top_k, shifted)

    def stage(x: Tensor, name: str, depth: int) -> Tensor:
        return naive.stage_forward(state, x, name, 0, depth, attention)

    def convolve(key: str, x: Tensor, shuffle: Any) -> Tensor:
        return shuffle(naive.conv(state, key, x.permute(0, 3, 1, 2)), 2).permute(0, 2, 3, 1)

    image = naive.pad(images, 16)
    shallow = naive.conv(state, "conv_first", image)
    first = stage(shallow.permute(0, 2, 3, 1), "encoder.0", 2)
    second = stage(convolve("down.0.0", first, F.pixel_unshuffle), "encoder.1", 1)
    x = stage(convolve("down.1.0", second, F.pixel_unshuffle), "encoder.2", 1)
    for level, skip, depth in ((1, second, 1), (0, first, 2)):
        risen = convolve(f"up.{level}.0", x, F.pixel_shuffle)
        merged = naive.linear(state, f"merge.{level}", torch.cat([risen, skip], -1))
        x = stage(merged, f"decoder.{level}", depth)
    y = naive.norm(state, "norm", stage(x, "final", 1)).permute(0, 3, 1, 2)
    y = naive.conv(state, "conv_after_body", y) + shallow
    return (naive.conv(state, "conv_last", y) + image)[..., :height, :width]


@pytest.mark.parametrize("size", [(16, 32), (13, 7)])
def test_the_u_shaped_network_is_the_formula(size: tuple[int, int]) -> None:
    network = build("semanir-unet", depths=(2, 1, 1))
    images = random_images(2, 1, *size)
    expected = unet_reference(naive.doubles(network.state_dict()), images.double(), 5)
    torch.testing.assert_close(network(images).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window_size", [1, 2, 8])
def test_the_position_bias_is_the_formula_of_swin_v2(window_size: int) -> None:
    network = build("semanir", window_size=window_size)
    prefix = "layers.1.residual_group.blocks.0"
    module = network.get_submodule(f"{prefix}.attn")
    table = module.bias_table()
    assert table.shape == ((2 * window_size - 1) ** 2, 2)
    assert 0 <= table.min() <= table.max() <= 16
    expected = naive.semantic_bias_table(naive.doubles(network.state_dict()), prefix, window_size)
    torch.testing.assert_close(table.double(), expected, rtol=0, atol=1e-5)
    if window_size > 1:
        assert table.std() > 0.5
        # row-major offsets, the same for a query and key whatever the window: (-1, 0) is above
        assert torch.equal(module.coordinates[0], torch.tensor([-1.0, -1.0]) * module.coordinates[-1])
    frozen = fold(network).get_submodule(f"{prefix}.attn")
    assert torch.equal(frozen.bias_table(), table)
    assert not hasattr(frozen, "cpb_mlp")


# ---- the dictionary ----


class Spy:
    """Counts the calls of a function of the module and keeps its results and arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.function = getattr(semanir, name)
        self.calls: list[tuple[Any, ...]] = []
        self.results: list[Any] = []
        monkeypatch.setattr(semanir, name, self)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((*arguments, *named.values()))
        self.results.append(self.function(*arguments, **named))
        return self.results[-1]


@pytest.mark.parametrize("operators", [True, False], ids=["operators", "plain"])
@pytest.mark.parametrize("kind", ["semanir", "semanir-unet"])
def test_one_dictionary_per_stage_shared_by_its_layers(
    kind: str, operators: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(kind)
    use_operators(network, operators)
    build_dictionary = Spy(monkeypatch, "key_semantic_dictionary" if operators else "plain_dictionary")
    attend = Spy(monkeypatch, "key_semantic_attention" if operators else "plain_attention")
    network(random_images(1, network.spec.channels, 16, 16))
    depths = [len(stage.residual_group.blocks) for stage in stages(network)]
    assert len(build_dictionary.calls) == len(depths)
    assert len(attend.calls) == sum(depths)
    used = [call[1] if operators else call[-1] for call in attend.calls]
    # stages run in another order than they are defined in a U; count the uses of each dictionary
    uses = [sum(made is one for one in used) for made in build_dictionary.results]
    assert sum(uses) == sum(depths)
    assert sorted(uses) == sorted(depths)


def test_the_dictionary_is_of_the_normalised_input_of_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = build("semanir")
    spy = Spy(monkeypatch, "key_semantic_dictionary")
    seen: list[Tensor] = []
    for stage in network.layers:
        stage.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(random_images(1, 3, 8, 8))
    for (features, window, shift, top_k), given, index in zip(spy.calls, seen, (0, 1), strict=True):
        assert (window, shift, top_k) == (4, 2 * index, 5)
        torch.testing.assert_close(features, F.layer_norm(given, (12,)))


def test_the_shift_alternates_by_stage_not_by_layer() -> None:
    network = build("semanir", depths=(2, 2, 1))
    for index, stage in enumerate(network.layers):
        shifts = {block.attn.shift_size for block in stage.residual_group.blocks}
        assert shifts == {stage.shift_size} == {2 if index % 2 else 0}


# ---- top_k ----


@pytest.mark.parametrize("kind", ["semanir", "semanir-unet"])
def test_set_top_k_changes_every_stage_the_spec_and_what_is_saved(kind: str) -> None:
    network = build(kind)
    images = random_images(1, network.spec.channels, 16, 16)
    before = network(images)
    set_top_k(network, 9)
    assert network.spec.top_k == 9
    assert {stage.top_k for stage in stages(network)} == {9}
    assert network.state_dict()["geometry"].tolist() == [4, 9]
    after = network(images)
    assert (after - before).abs().max() > 1e-4
    assert torch.equal(after, build(kind, top_k=9)(images))
    set_top_k(network, 5)
    assert torch.equal(network(images), before)


@pytest.mark.parametrize("kind", ["semanir", "semanir-unet"])
def test_all_keys_are_dense_attention(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(kind, top_k=16)
    images = random_images(1, network.spec.channels, 16, 16)
    full = network(images)
    set_top_k(network, 10_000)
    assert torch.equal(network(images), full)
    set_top_k(network, 15)
    assert not torch.equal(network(images), full)

    def dense(qkv: Tensor, _: Tensor, *rest: Any) -> Tensor:
        return shifted_window_attention(qkv, *rest)

    monkeypatch.setattr(semanir, "key_semantic_attention", dense)
    torch.testing.assert_close(network(images), full, rtol=0, atol=1e-5)


@pytest.mark.parametrize("top_k", [0, -3])
def test_top_k_below_one_is_refused(top_k: int) -> None:
    network = build("semanir")
    with pytest.raises(ValueError, match=f"at least 1, got {top_k}"):
        set_top_k(network, top_k)
    assert network.spec.top_k == 5
    with pytest.raises(InputError, match=rf"top_k {top_k} .*semanir_tiny_x2") as caught:
        load_model("semanir_tiny_x2", random_weights=0, top_k=top_k)
    assert caught.value.exit_code == 2


def test_top_k_of_a_network_without_dictionary_is_refused() -> None:
    for kind in ("swinir-light", "agileir"):
        with pytest.raises(ValueError, match="SemanIR"):
            set_top_k(build(kind), 8)
    with pytest.raises(InputError, match=r"top_k 8 .*agileir_tiny_x2.*SemanIR"):
        load_model("agileir_tiny_x2", random_weights=0, top_k=8)


# ---- loading ----


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["semanir", "semanir-unet"])
def test_a_checkpoint_brings_its_window_and_top_k(kind: str, suffix: str, tmp_path: Path) -> None:
    network = build(kind)
    set_top_k(network, 7)
    path = tmp_path / f"own{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), path)
    else:
        import safetensors.torch

        safetensors.torch.save_file(network.state_dict(), path)
    loaded = load_model(path)
    assert loaded.spec == network.spec
    images = random_images(1, network.spec.channels, 9, 20)
    assert torch.equal(loaded(images), network(images))
    assert load_model(path, top_k=3).spec.top_k == 3


def tiny_state(window_size: int, top_k: int) -> naive.State:
    state = load_model("semanir_tiny_x2", random_weights=0).state_dict()
    return {**state, "geometry": torch.tensor([window_size, top_k])}


def test_weights_of_a_preset_bring_their_top_k(tmp_path: Path) -> None:
    torch.save(tiny_state(16, 33), tmp_path / "own.pth")
    network = load_model("semanir_tiny_x2", weights=tmp_path / "own.pth")
    assert network.spec.top_k == 33
    assert {stage.top_k for stage in stages(network)} == {33}


@pytest.mark.parametrize(("window_size", "top_k"), [(8, 64), (16, 0), (16, -1), (0, 64)])
def test_an_impossible_geometry_is_refused(window_size: int, top_k: int, tmp_path: Path) -> None:
    torch.save(tiny_state(window_size, top_k), tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match=r"own\.pth.*geometry"):
        load_model("semanir_tiny_x2", weights=tmp_path / "own.pth")
    if window_size != 8:
        with pytest.raises(CheckpointError, match=r"own\.pth"):
            load_model(tmp_path / "own.pth")


# ---- the U ----


@pytest.mark.parametrize(("levels", "multiple"), [(1, 4), (2, 8), (3, 16), (4, 32)])
def test_levels_of_the_u(levels: int, multiple: int) -> None:
    network = build("semanir-unet", depths=(1,) * levels, channels=3)
    assert network.spec.pad_multiple == multiple
    assert network.spec.window_size == 4
    assert (len(network.encoder), len(network.decoder)) == (levels, levels - 1)
    seen: list[tuple[int, ...]] = []
    for stage in stages(network):
        stage.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    images = random_images(2, 3, multiple + 1, 3)
    assert network(images).shape == images.shape
    down = [(2, 2 * multiple >> i, multiple >> i, 8 << i) for i in range(levels)]
    assert seen == [*down, *reversed(down[:-1]), down[0]]
    heads = [stage.residual_group.blocks[0].attn.num_heads for stage in network.encoder]
    assert heads == [2 << i for i in range(levels)]


def test_the_u_adds_the_image() -> None:
    network = build("semanir-unet")
    network.conv_last.weight.zero_()
    network.conv_last.bias.zero_()
    images = random_images(1, 1, 11, 5)
    torch.testing.assert_close(network(images), images)


def test_the_u_keeps_the_size() -> None:
    with pytest.raises(ValueError, match="got scale 2"):
        build("semanir-unet", scale=2)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="12 channels do not divide into 5 heads"):
        build("semanir", num_heads=5)
