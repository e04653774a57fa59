"""AgileIR: the attention against an independent formula, BatchNorm, released checkpoints."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agileir_export.errors import InputError
from agileir_export.models import ReleasedCodeWarning, Restorer, build_preset, fold, load_model, use_operators
from agileir_export.models.agileir import GroupAttention

from ..export.networks import build
from . import naive
from .naive import random_images

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")


def first_attention(network: Restorer, block: int = 0) -> GroupAttention:
    return network.get_submodule(f"layers.0.residual_group.blocks.{block}.attn")


def attention_reference(module: GroupAttention, x: Tensor, block: int, training: bool) -> Tensor:
    state = {f"here.attn.{key}": value for key, value in naive.doubles(module.state_dict()).items()}
    attention = naive.group_attention(state, module.window_size, training)
    return attention(x, x.double(), "here", 0, block)


def assert_is_the_formula(
    network: Restorer, images: Tensor, state: naive.State, attention: naive.Attention, atol: float = 1e-5
) -> None:
    """`network` is the one of two stages that this state dict and this attention make."""
    how: dict[str, Any] = {"depths": (2, 1), "upsampler": "pixelshuffledirect", "scale": 2}
    multiple = network.spec.window_size
    expected = naive.columnar(state, images.double(), attention=attention, multiple=multiple, **how)
    torch.testing.assert_close(network(images).double(), expected, rtol=0, atol=atol)


# ---- the formula ----


@pytest.mark.parametrize("window_size", [4, 5])
@pytest.mark.parametrize("size", [(8, 12), (4, 4), (5, 3)])
def test_the_network_is_the_papers_formula(size: tuple[int, int], window_size: int) -> None:
    network = build("agileir-mixed", window_size=window_size)
    state = naive.doubles(network.state_dict())
    assert_is_the_formula(network, random_images(2, 3, *size), state, naive.group_attention(state, window_size))


@pytest.mark.parametrize("block", [0, 1], ids=["unshifted", "shifted"])
@pytest.mark.parametrize(("groups", "key_dim"), [(3, 4), (2, 6), (1, 3), (12, 2)])
def test_folded_and_unfolded_batch_norm_agree(groups: int, key_dim: int, block: int) -> None:
    network = build("agileir-mixed", depths=(2,), num_heads=(groups,), key_dims=(key_dim,), seed=groups)
    module = first_attention(network, block)
    assert module.shift_size == 2 * block
    x = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    expected = attention_reference(module, x, block, training=False)
    for y in (module(x), module._with_batch_statistics(x), first_attention(fold(network), block)(x)):
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.05


@pytest.mark.parametrize("block", [0, 1], ids=["unshifted", "shifted"])
def test_training_uses_and_gathers_batch_statistics(block: int) -> None:
    module = first_attention(build("agileir-mixed"), block).train()
    x = torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    expected = attention_reference(module, x, block, training=True)
    running = attention_reference(module, x, block, training=False)
    before = copy.deepcopy(module.state_dict())
    torch.testing.assert_close(module(x).double(), expected, rtol=0, atol=1e-5)
    assert (expected - running).abs().max() > 0.01
    after = module.state_dict()
    for key in before:
        moved = not torch.equal(before[key], after[key])
        statistic = key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert moved == statistic, key


@torch.enable_grad()
def test_training_reaches_every_parameter() -> None:
    for kind in ("agileir-mixed", "agileir-bias"):
        network = build(kind).train()
        network(random_images(1, 3, 8, 8)).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_biases_take_the_place_of_batch_norm() -> None:
    network = build("agileir-bias")
    assert not any(".bn." in key for key in network.state_dict())
    module = first_attention(network, 1)
    x = torch.randn(1, 8, 8, 12, generator=torch.Generator().manual_seed(1))
    # the same as a BatchNorm that only adds the bias
    state = naive.doubles(module.state_dict())
    for key, value in list(state.items()):
        if key.endswith(".c.bias"):
            stem = key.removesuffix(".c.bias")
            zero = torch.zeros_like(value)
            norm = {"weight": zero + (1 + 1e-5) ** 0.5, "bias": value, "running_mean": zero, "running_var": zero + 1}
            state |= {f"{stem}.bn.{name}": each for name, each in norm.items()}
    state = {f"here.attn.{key}": value for key, value in state.items()}
    expected = naive.group_attention(state, 4)(x, x.double(), "here", 0, 1)
    torch.testing.assert_close(module(x).double(), expected, rtol=0, atol=1e-5)
    module.train()  # nothing to gather: the operator is used in training as well
    torch.testing.assert_close(module(x).double(), expected, rtol=0, atol=1e-5)


# ---- the bypass of the released code ----


@pytest.mark.parametrize("training", [False, True])
def test_bypassed_attention_returns_its_input(training: bool) -> None:
    module = first_attention(build("agileir-mixed", attention="bypassed"), 1).train(training)
    x = torch.randn(1, 8, 8, 12)
    assert torch.equal(module(x), x)


def test_a_bypassed_network_is_the_released_one() -> None:
    paper, bypassed = build("agileir-mixed"), build("agileir-mixed", attention="bypassed")
    images = random_images(1, 3, 9, 8)
    for network in (bypassed, fold(bypassed)):
        assert_is_the_formula(network, images, naive.doubles(bypassed.state_dict()), lambda start, x, *_: x)
    assert (paper(images) - bypassed(images)).abs().max() > 0.01
    with pytest.raises(ValueError, match="paper"):
        build("agileir-mixed", attention="other")


# ---- released checkpoints ----


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """A.8 by hand, for the small network: C 12, w 4, groups 3 and 2, key widths 4 and 6, x2."""
    shapes: dict[str, tuple[int, ...]] = {}

    def affine(key: str, *shape: int) -> None:
        shapes[f"{key}.weight"], shapes[f"{key}.bias"] = shape, shape[:1]

    def conv_norm(key: str, *shape: int) -> None:
        shapes[f"{key}.c.weight"] = shape
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{key}.bn.{name}"] = shape[:1]
        shapes[f"{key}.bn.num_batches_tracked"] = ()

    affine("conv_first", 12, 3, 3, 3)
    affine("patch_embed.norm", 12)
    for stage, depth, groups, key_dim in ((0, 2, 3, 4), (1, 1, 2, 6)):
        for block in range(depth):
            at = f"layers.{stage}.residual_group.blocks.{block}"
            if block % 2:
                shapes[f"{at}.attn_mask"] = (4, 16, 16)
            affine(f"{at}.norm1", 12)
            shapes[f"{at}.attn.relative_position_bias_table"] = (49, groups)
            shapes[f"{at}.attn.relative_position_index"] = (16, 16)
            for g in range(groups):
                each = 12 // groups
                conv_norm(f"{at}.attn.groupatt.qkvs.{g}", 2 * key_dim + each, each, 1, 1)
                conv_norm(f"{at}.attn.groupatt.dws.{g}", key_dim, 1, 5, 5)
            conv_norm(f"{at}.attn.groupatt.proj.1", 12, 12, 1, 1)
            affine(f"{at}.norm2", 12)
            affine(f"{at}.mlp.fc1", 24, 12)
            affine(f"{at}.mlp.fc2", 12, 24)
        affine(f"layers.{stage}.conv", 12, 12, 3, 3)
    affine("norm", 12)
    affine("conv_after_body", 12, 12, 3, 3)
    affine("upsample.0", 12, 12, 3, 3)
    return shapes


def released_state(seed: int = 0) -> naive.State:
    """A checkpoint as the released code would write it."""
    generator = torch.Generator().manual_seed(seed)
    state: naive.State = {}
    for key, shape in expected_shapes().items():
        if key.endswith("relative_position_index"):
            state[key] = naive.bias_index(4)
        elif key.endswith("attn_mask"):
            state[key] = naive.mask(8, 8, 4, 2)
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith(("running_var", "bn.weight", "norm1.weight", "norm2.weight")):
            state[key] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[key] = torch.randn(shape, generator=generator) * 0.2
    return state


def test_the_keys_are_those_of_the_released_code() -> None:
    found = {key: tuple(value.shape) for key, value in build("agileir-mixed").state_dict().items()}
    ignored = ("relative_position_index", "attn_mask")  # derived, not kept
    wanted = {k: v for k, v in expected_shapes().items() if not k.endswith(ignored)}
    assert found == wanted


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema"])
def test_a_released_checkpoint_loads_and_follows_the_paper(wrapper: str | None, tmp_path: Path) -> None:
    state = released_state()
    torch.save(state if wrapper is None else {wrapper: state}, tmp_path / "115200_G.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = load_model(tmp_path / "115200_G.pth")
    assert (network.spec.family, network.spec.name) == ("agileir", "custom")
    assert (network.spec.window_size, network.spec.scale) == (4, 2)
    keys = [first.attn.key_dim for first in (s.residual_group.blocks[0] for s in network.layers)]
    assert keys == [4, 6]
    released = naive.doubles(state)
    assert_is_the_formula(network, random_images(1, 3, 8, 12), released, naive.group_attention(released, 4), 2e-5)


def test_a_network_without_batch_norm_is_recognised(tmp_path: Path) -> None:
    network = build("agileir-bias")
    torch.save(network.state_dict(), tmp_path / "own.pt")
    images = random_images(1, 3, 8, 8)
    assert torch.equal(load_model(tmp_path / "own.pt")(images), network(images))


def test_key_widths_vary_by_stage_in_the_released_medium_option() -> None:
    network = build_preset("agileir_lightest_x2", depths=(1,) * 6, num_heads=(6,) * 6, key_dims=(16,) * 5 + (32,))
    widths = [s.residual_group.blocks[0].attn.groupatt.dws[0].c.out_channels for s in network.layers]
    assert widths == [16] * 5 + [32]


def untrained(state: naive.State, sparing: str = "nothing") -> naive.State:
    return {
        key: value * 0 if key.endswith("proj.1.bn.weight") and sparing not in key else value
        for key, value in state.items()
    }


def test_a_checkpoint_whose_attention_never_trained_brings_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "released.pth"
    torch.save({"params": untrained(released_state())}, path)
    with pytest.warns(ReleasedCodeWarning) as caught:
        network = load_model(path)
    assert len(caught) == 1
    assert str(path) in str(caught[0].message)
    assert 'attention="bypassed"' in str(caught[0].message)
    assert caught[0].filename == __file__  # it points at the caller
    assert not first_attention(network).bypassed

    with pytest.warns(ReleasedCodeWarning):
        bypassed = load_model(path, attention="bypassed")
    images = random_images(1, 3, 8, 8)
    assert (bypassed(images) - network(images)).abs().max() > 1e-3


def test_one_trained_projection_is_enough_not_to_warn(tmp_path: Path) -> None:
    torch.save(untrained(released_state(), sparing="layers.1."), tmp_path / "a.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(tmp_path / "a.pth")


def test_the_form_of_attention_is_checked(tmp_path: Path) -> None:
    torch.save(released_state(), tmp_path / "a.pth")
    for source, random in ((tmp_path / "a.pth", None), ("agileir_tiny_x2", 0)):
        with pytest.raises(InputError, match="'none'") as caught:
            load_model(source, random_weights=random, attention="none")
        assert type(caught.value) is InputError
        assert load_model(source, random_weights=random, attention="bypassed").spec
    with pytest.raises(InputError, match=r"swinir_light_x2.*swinir"):
        load_model("swinir_light_x2", random_weights=0, attention="bypassed")


# ---- folding ----


def test_folding_leaves_no_batch_norm_and_no_group_convolution() -> None:
    network = build("agileir-mixed")
    folded = fold(network)
    modules = [type(m) for m in folded.modules()]
    assert torch.nn.BatchNorm2d not in modules
    assert torch.nn.BatchNorm2d in [type(m) for m in network.modules()]
    module = first_attention(folded)
    assert module.qkv_weight.shape == (3, 12, 4)
    assert module.q_dw_weight.shape == (3, 4, 5, 5)
    assert module.proj_weight.shape == (12, 12)
    use_operators(folded, False)
    images = random_images(1, 3, 8, 8)
    torch.testing.assert_close(folded(images), network(images), rtol=0, atol=1e-5)


def test_groups_must_divide_the_width() -> None:
    for groups in (5, 0):
        with pytest.raises(ValueError, match=f"12 channels do not divide into {groups} groups"):
            build("agileir-mixed", num_heads=(groups, 2))
    with pytest.raises(ValueError):
        build("agileir-mixed", key_dims=(4,))
