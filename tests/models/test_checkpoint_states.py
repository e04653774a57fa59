"""State dicts that do not fit a network: the first offending key is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from agileir_export.errors import CheckpointError
from agileir_export.models import (
    CHECKPOINT_SUFFIXES,
    load_model,
)

from .checkpoints import one_of_each, refused, reshaped, saved, state_of, write

# ---- state dicts that do not fit ----


@pytest.mark.parametrize("suffix", CHECKPOINT_SUFFIXES)
def test_an_unknown_architecture(suffix: str, tmp_path: Path) -> None:
    state = {f"body.{i}.weight": torch.ones(2) for i in range(5)}
    content = safetensors.torch.save(state) if suffix == ".safetensors" else saved(state)
    error = refused(write(tmp_path, content, suffix), "architecture is not known")
    assert "body.0.weight" in error.why
    for family in ("agileir", "semanir", "swinir"):
        assert family in error.why


KINDS = ("swinir-classical", "swinir-real", "agileir-mixed", "semanir", "semanir-unet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_key_is_named(kind: str, tmp_path: Path) -> None:
    state = state_of(kind)
    for key in ("conv_first.bias", "layers.1.conv.bias", "final.conv.bias", "norm.weight"):
        if key in state:
            rest = {k: v for k, v in state.items() if k != key}
            error = refused(write(tmp_path, saved(rest)), key, "missing", "(1 in all)")
            assert error.fix
    rest = {k: v for k, v in state.items() if not k.startswith("norm.")}
    refused(write(tmp_path, saved(rest)), "norm.weight", "missing", "(2 in all)")


@pytest.mark.parametrize("kind", KINDS)
def test_without_any_single_key_loading_names_it_or_the_architecture(kind: str, tmp_path: Path) -> None:
    state = state_of(kind)
    for key in one_of_each(state):
        rest = {k: v for k, v in state.items() if k != key}
        error = refused(write(tmp_path, saved(rest)))
        named = key in error.what or key.rsplit(".", 1)[0] in error.what
        guessed = "not known" in error.what or "is not part of" in error.what
        assert named or guessed or "has shape" in error.what, (key, error.what)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unexpected_key_is_named(kind: str, tmp_path: Path) -> None:
    state = {**state_of(kind), "ape.weight": torch.ones(2), "zoo": torch.ones(1)}
    refused(write(tmp_path, saved(state)), "ape.weight", "not part of", "2 such keys")


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_shape_is_named_with_both_shapes(kind: str, tmp_path: Path) -> None:
    state = state_of(kind)
    width = len(state["conv_after_body.bias" if kind != "swinir-real" else "norm.bias"])
    state["norm.weight"] = torch.ones(width + 1)
    refused(write(tmp_path, saved(state)), "norm.weight has shape", f"({width + 1},)", f"({width},)")


def test_weights_of_another_preset_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, saved(load_model("agileir_tiny_x2", random_weights=0).state_dict()))
    with pytest.raises(CheckpointError, match=r"upsample.0.weight has shape .*agileir_tiny_x4"):
        load_model("agileir_tiny_x4", weights=path)
    with pytest.raises(CheckpointError, match=r"conv_first.weight has shape"):
        load_model("swinir_light_x2", weights=path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_counted(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state_of().items()}
    state["conv_last.bias"][:2] = value
    error = refused(write(tmp_path, saved(state)), "conv_last.bias", "2 values", "NaN or infinite")
    assert error.fix


def test_double_values_too_large_for_single_precision_are_not_finite(tmp_path: Path) -> None:
    state = {k: v.double() for k, v in state_of().items()}
    state["conv_last.bias"][0] = 1e300
    refused(write(tmp_path, saved(state)), "conv_last.bias", "1 values")


def test_nan_in_derived_buffers_does_not_matter(tmp_path: Path) -> None:
    block = "layers.0.residual_group.blocks.1"
    state = {**state_of(), f"{block}.attn_mask": torch.full((4, 16, 16), float("nan"))}
    load_model(write(tmp_path, saved(state)))


@pytest.mark.parametrize(
    "kind",
    [
        "swinir-real",
        "agileir-mixed",
        "semanir",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("swinir-classical", "semanir-unet")),
    ],
)
def test_whatever_shape_one_tensor_has_the_error_is_typed(kind: str, tmp_path: Path) -> None:
    state = state_of(kind)
    telling = (
        "conv_first.weight", "geometry", "0.attn.relative_position_bias_table", "mlp.fc1.weight",
        "conv_before_upsample.0.weight", "upsample.0.weight", "qkvs.0.c.weight", "dws.0.c.weight",
        "cpb_mlp.2.weight", "conv_last.weight", "attn.qkv.weight", "conv_after_body.weight",
    )  # fmt: skip
    for key in [k for k in one_of_each(state) if k.endswith(telling)]:
        for value in reshaped(state[key]):
            path = write(tmp_path, saved({**state, key: value.clone()}))
            try:
                network = load_model(path)
            except CheckpointError as error:
                assert str(path) in error.what
            else:  # broadcasting never fills a tensor: the shapes have to be a network's
                assert value.shape == state[key].shape or network.spec.name == "custom"
                network(torch.rand(1, network.spec.channels, 5, 6))


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_width_are_refused(heads: int, tmp_path: Path) -> None:
    state = state_of()
    for key in state:
        if key.endswith("blocks.0.attn.relative_position_bias_table"):
            state[key] = torch.ones(49, heads)
    error = refused(write(tmp_path, saved(state)))
    assert f"{heads} heads" in str(error)


def test_a_gap_or_a_huge_number_among_the_stages_is_a_missing_key(tmp_path: Path) -> None:
    state = state_of()
    state["layers.99999999999.conv.weight"] = torch.ones(1)
    refused(write(tmp_path, saved(state)), "layers.1", "missing")
    state = {k: v for k, v in state_of("agileir-mixed").items() if ".groupatt.qkvs.1." not in k}
    refused(write(tmp_path, saved(state)), "blocks.0.attn.groupatt.qkvs.1", "missing")
