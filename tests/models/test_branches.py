"""Checkpoints as trainers write them: wrappers and prefixes in any order, averages, other networks beside."""

from __future__ import annotations

import argparse
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from agileir_export.errors import CheckpointError
from agileir_export.models import load_model

from ..export.networks import build
from .checkpoints import refused, saved, state_of, write

State = dict[str, Tensor]
KIND = "swinir-classical"
GOOD = state_of(KIND)
RAW = dict(build(KIND, seed=1).state_dict())
BESIDE = {"weight": torch.zeros(2, 2), "features.0.bias": torch.zeros(2)}
"""Layers of a loss or a discriminator."""


def under(prefix: str, state: State = GOOD) -> State:
    return {prefix + key: value for key, value in state.items()}


def loads(content: object, folder: Path, suffix: str = ".pth") -> Any:
    """Loads what was saved, and sees that the weights are those of `GOOD`."""
    model = load_model(write(folder, saved(content), suffix))
    for key, value in model.state_dict().items():
        assert torch.equal(value, GOOD[key]), key
    assert model.origin is not None
    return model.origin


PREFIXES = ("_orig_mod.", "module.", "model.", "net_g.", "netG.", "generator.", "ema_model.", "my.own.")
WRAPPERS = (
    "params", "params_ema", "params-ema", "state_dict", "model_state_dict", "model_state", "model", "net", "netG",
    "net_g", "generator", "network", "g", "weights", "ema", "my_own",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_prefix(prefix: str, tmp_path: Path) -> None:
    loads(under(prefix), tmp_path)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_one_wrapper(wrapper: str, tmp_path: Path) -> None:
    origin = loads({wrapper: GOOD, "epoch": 3, "best": 31.2, "name": "run", "optimizer": {"state": {}}}, tmp_path)
    assert origin.branch == wrapper


def test_prefixes_and_wrappers_in_any_order(tmp_path: Path) -> None:
    for one, other in itertools.permutations(PREFIXES[:6], 2):
        loads({"state_dict": under(one + other)}, tmp_path)
    for one, other in itertools.permutations(WRAPPERS[:7], 2):
        loads({one: {other: under("module._orig_mod.")}}, tmp_path)


def test_what_compilers_insert_may_stand_anywhere(tmp_path: Path) -> None:
    for part in ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"):
        inside = {k.replace("layers.0.", f"layers.0.{part}."): v for k, v in GOOD.items()}
        loads(inside, tmp_path)
        loads(under(f"module.{part}.", inside), tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".pth.tar", ".PT", ".tar"])
def test_suffixes(suffix: str, tmp_path: Path) -> None:
    loads({"state_dict": under("module.")}, tmp_path, suffix)


@pytest.mark.parametrize("kind", ["agileir", "semanir", "semanir-unet"])
def test_other_families(kind: str, tmp_path: Path) -> None:
    state = state_of(kind)
    model = load_model(write(tmp_path, saved({"state_dict": {**under("net_g.", state), **under("net_d.", BESIDE)}})))
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_prefixes_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    whole = {**under("params.", RAW), **under("params_ema.")}
    safetensors.torch.save_file({key: value.clone() for key, value in whole.items()}, path)
    model = load_model(path)
    assert model.origin is not None and (model.origin.branch, model.origin.left_out) == ("params_ema", ("params",))


# ---- which weights ----

AVERAGED: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "basicsr": ({"params": RAW, "params_ema": GOOD}, "params_ema", ("params",)),
    "model_ema": ({"model": RAW, "model_ema": GOOD}, "model_ema", ("model",)),
    "ema_state_dict": ({"state_dict": RAW, "ema_state_dict": GOOD}, "ema_state_dict", ("state_dict",)),
    "timm": ({"state_dict_ema": under("module."), "state_dict": RAW}, "state_dict_ema.module", ("state_dict",)),
    "kair": ({"G": RAW, "E": GOOD}, "E", ("G",)),
    "lightning": (
        {"state_dict": {**under("model.", RAW), **under("ema_model.")}},
        "state_dict.ema_model",
        ("state_dict.model",),
    ),
    "gan": ({"netG": RAW, "netG_ema": GOOD, "netD": BESIDE}, "netG_ema", ("netD", "netG")),
    "averaged model": ({"n_averaged": torch.tensor(7), **under("module.")}, "module", ()),
    "averaged beside raw": (
        {"model": RAW, "second": {"n_averaged": torch.tensor(7), **under("module.")}},
        "second.module",
        ("model",),
    ),
    "stripped counter": ({"n_averaged": torch.tensor(7), **GOOD}, "", ()),
    "bare beside ema": ({**RAW, **under("ema.")}, "ema", tuple(sorted({key.split(".")[0] for key in RAW}))),
}


@pytest.mark.parametrize("case", AVERAGED)
def test_an_average_is_taken_and_said(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, branch, left_out = AVERAGED[case]
    with caplog.at_level(logging.INFO, "agileir_export"):
        origin = loads(content, tmp_path)
    assert (origin.branch, origin.left_out) == (branch, left_out)
    (said,) = caplog.messages
    assert said.startswith(f"weights.pth: the averaged weights (EMA) in {branch or 'it'} are taken")
    assert all(name in said for name in left_out)


CHOSEN: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "lightning and its loss": (
        {"state_dict": {**under("model."), **under("loss.vgg.", BESIDE)}, "global_step": 9},
        "state_dict.model",
        ("state_dict.loss",),
    ),
    "generator and discriminator of one kind": ({"netG": GOOD, "netD": RAW}, "netG", ("netD",)),
    "a loss among bare keys": ({**GOOD, **under("criterion.", BESIDE)}, "", ("criterion",)),
    "student": (
        {"state_dict": {**under("teacher.", RAW), **under("student.")}},
        "state_dict.student",
        ("state_dict.teacher",),
    ),
    "usual before own": (
        {"state_dict": {**under("other.", RAW), **under("net_g.")}},
        "state_dict.net_g",
        ("state_dict.other",),
    ),
    "shadow parameters without names": (
        {"model": GOOD, "ema": {"shadow_params": list(RAW.values())}},
        "model",
        ("ema.shadow_params",),
    ),
    "one network twice": ({"state_dict": {**under("a."), **under("b.")}}, "state_dict.a", ("state_dict.b",)),
    "before averaging": ({"state_dict": GOOD, "current_model_state": RAW}, "state_dict", ("current_model_state",)),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_what_is_left_out_is_named(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, branch, left_out = CHOSEN[case]
    with caplog.at_level(logging.INFO, "agileir_export"):
        origin = loads(content, tmp_path)
    assert (origin.branch, origin.left_out) == (branch, left_out)
    assert caplog.messages == [
        f"weights.pth: the weights in {branch or 'its top level'} are taken; left out: {', '.join(left_out)}"
    ]


def test_where_there_is_no_choice_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agileir_export"):
        for content in (GOOD, {"params": GOOD}, under("module._orig_mod."), {"state_dict": under("model.")}):
            loads(content, tmp_path)
    assert not caplog.messages


@pytest.mark.parametrize(
    "content",
    [{"one": GOOD, "two": RAW}, {"state_dict": {**under("one.", GOOD), **under("two.", RAW)}}],
    ids=["wrappers", "prefixes"],
)
def test_of_networks_without_a_hint_none_is_taken(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, saved(content))
    error = refused(path, "holds 2 networks", "one", "two")
    line = error.fix.removeprefix("Save one alone, such as ").removesuffix(".")
    monkeypatch.chdir(tmp_path)
    exec(line, {"torch": torch})  # the way out is one
    (alone,) = tmp_path.glob("*one.pth")
    assert torch.equal(load_model(alone).state_dict()["conv_last.bias"], GOOD["conv_last.bias"])


def test_a_preset_takes_the_average_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = "agileir_tiny_x2"
    first, second = (load_model(name, random_weights=seed).state_dict() for seed in (0, 1))
    path = write(tmp_path, saved({"model": first, "model_ema": second}))
    with caplog.at_level(logging.INFO, "agileir_export"):
        loaded = load_model(name, weights=path).state_dict()
    assert torch.equal(loaded["norm.weight"], second["norm.weight"]) and "model_ema" in caplog.text


# ---- what stands beside the weights ----


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(31.2),
        np.float32(1),
        np.int64(3),
        np.arange(3.0),
        argparse.Namespace(lr=1e-4),
        Path("runs") / "one",
        [1, 2],
        None,
        {"lr": np.float64(1e-4)},
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_harmless_objects_are_passed_over(beside: object, legacy: bool, tmp_path: Path) -> None:
    for content in ({"params": GOOD, "beside": beside}, {**GOOD, "beside": beside}):
        load_model(write(tmp_path, saved(content, legacy)))


def test_weights_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    state = {**GOOD, "conv_last.bias": GOOD["conv_last.bias"].tolist()}
    refused(write(tmp_path, saved({"model": state})), "'conv_last.bias' is list, not a tensor")


def test_keys_that_belong_to_the_network_are_not_left_out(tmp_path: Path) -> None:
    for key in ("ape.weight", "upsample.9.weight", "zoo"):
        refused(write(tmp_path, saved({"state_dict": under("model.", {**GOOD, key: torch.ones(2)})})), f"key {key}")


@pytest.mark.parametrize(
    "content",
    [
        {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        {"state": {}, "param_groups": []},
        {"epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}},
        {"epoch": 3, "iter": 9, "optimizers": [{"state": {}, "param_groups": []}], "schedulers": []},
    ],
    ids=["kair", "empty", "wrapped", "basicsr"],
)
def test_the_state_of_an_optimizer(content: object, tmp_path: Path) -> None:
    error = refused(write(tmp_path, saved(content)), "holds the state of an optimizer")
    assert "_G.pth" in error.fix


def test_an_unknown_network_is_shown_without_its_wrappers(tmp_path: Path) -> None:
    unknown = {f"body.{i}.weight": torch.ones(2) for i in range(5)}
    with pytest.raises(CheckpointError) as caught:
        load_model(write(tmp_path, saved({"state_dict": under("module.", unknown), "epoch": 1})))
    assert "body.0.weight" in caught.value.why and "module" not in caught.value.why
    assert "All begin with body." in caught.value.why
