"""Arguments of load_model, and metadata of packaged files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from agileir_export.errors import AgileIRError, CheckpointError, InputError, ModelNameError
from agileir_export.models import (
    load_model,
    packaged_models,
    preset_names,
    read_state,
)

from .checkpoints import refused, saved, state_of, write

# ---- arguments of load_model ----


def test_weights_and_a_seed_together_are_refused() -> None:
    with pytest.raises(InputError, match="Both weights and random weights") as caught:
        load_model("agileir_tiny_x2", weights="a.pth", random_weights=0)
    assert caught.value.exit_code == 2


def test_a_checkpoint_brings_its_own_weights(tmp_path: Path) -> None:
    path = write(tmp_path, saved(state_of()))
    for options in ({"random_weights": 0}, {"weights": path}):
        with pytest.raises(InputError, match="brings its own weights") as caught:
            load_model(path, **options)
        assert "preset" in caught.value.fix


@pytest.mark.parametrize("seed", [-1, -(2**70), 2**64, 2**70])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=str(seed)) as caught:
        load_model("agileir_tiny_x2", random_weights=seed)
    assert type(caught.value) is InputError


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_random_weights_of_a_preset(seed: int) -> None:
    network = load_model("agileir_tiny_x2", random_weights=seed)
    assert not network.training
    assert network.spec.name == "agileir_tiny_x2"


@pytest.mark.parametrize("name", ["agileir_tiny_x3", "semanir_x2", "nothing", "", "../nothing"])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises((ModelNameError, CheckpointError)) as caught:
        load_model(name)
    if "_" in name:
        assert isinstance(caught.value, ModelNameError)
        assert "Did you mean" in caught.value.fix


def test_a_name_too_long_for_a_file() -> None:
    with pytest.raises(AgileIRError):
        load_model("x" * 5000)
    with pytest.raises(AgileIRError):
        load_model("x" * 5000 + ".pth")


def test_a_preset_without_weights_says_what_to_do() -> None:
    for name in preset_names():
        if name not in packaged_models():
            with pytest.raises(ModelNameError, match=name) as caught:
                load_model(name)
            assert "--weights" in caught.value.fix and "--random-weights" in caught.value.fix
            break


def test_never_random_weights_silently() -> None:
    assert not set(packaged_models()) - set(preset_names())
    assert "agileir_x2" not in packaged_models()


# ---- metadata of packaged files ----


def test_metadata_of_safetensors(tmp_path: Path) -> None:
    state = {"a": torch.ones(1)}
    for metadata, wanted in (
        ({"agileir": '{"preset": "x"}'}, {"preset": "x"}),
        ({"other": "1"}, {}),
        (None, {}),
        ({"agileir": "[1]"}, {}),
    ):
        safetensors.torch.save_file(state, tmp_path / "a.safetensors", metadata=metadata)
        assert read_state(tmp_path / "a.safetensors") == (state, wanted)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors", metadata={"agileir": "{"})
    refused(tmp_path / "a.safetensors", "cannot be read")


@pytest.mark.slow
def test_a_file_says_which_of_several_fitting_presets_it_is(tmp_path: Path) -> None:
    state = load_model("swinir_denoise_grey", random_weights=0).state_dict()
    state = {k: v.contiguous() for k, v in state.items()}
    path = tmp_path / "a.safetensors"
    for named, wanted in (("swinir_denoise_grey", "swinir_denoise_grey"), ("swinir_real_x2", None)):
        metadata = {"agileir": f'{{"preset": "{named}"}}'}
        safetensors.torch.save_file(state, path, metadata=metadata)
        spec = load_model(path).spec
        assert spec.name == (wanted or "swinir_denoise_grey")
        assert spec.task == "denoising"


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "mkfifo"), reason="needs mkfifo")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    refused(tmp_path / "pipe.pth")
