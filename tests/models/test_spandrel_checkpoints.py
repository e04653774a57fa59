"""Broken, hostile and wrapped checkpoints of networks that spandrel knows: they end as those of our own do."""

from __future__ import annotations

import random
import re
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from agileir_export.errors import CheckpointError, Unsupported
from agileir_export.models import load_model

from ..scripts import load_script
from .checkpoints import one_of_each, refused, reshaped, saved, write

pytest.importorskip("spandrel")
pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

SCRIPT = load_script(Path(__file__).resolve().parents[2] / "tools" / "spandrel_networks.py")

State = dict[str, Tensor]

QUICK = ("ESRGAN", "SPAN")
OTHERS = ("Compact", "DAT", "GRL", "HAT", "NAFNet", "OmniSR", "SCUNet")
"""Told by two keys and by thirty, with tables and masks, of one level and of several."""
ALL = [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)]
EVERY = [pytest.param(each, 8, marks=pytest.mark.slow) for each in OTHERS]
SAMPLED = [*((each, 6) for each in QUICK), *EVERY]
"""Architectures, and how many of their keys are tried."""

MASKED = "LaMa"


@cache
def made(architecture: str, seed: int = 0) -> State:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return {name: value.clone() for name, value in SCRIPT.build(architecture).state_dict().items()}


def old(state: State) -> State:
    """A checkpoint of ESRGAN with the keys of its first release."""
    from spandrel.architectures import ESRGAN

    return dict(ESRGAN._to_old_arch(state))


def sample(state: State, count: int) -> list[str]:
    """Some keys from all parts of a checkpoint, each of another name."""
    keys = one_of_each(state)
    return keys[:: max(1, len(keys) // count)]


def picture(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, model.spec.channels, 20, 24, generator=generator)


def ends_well(path: Path) -> bool:
    """Whether a file loads and restores; False where it is refused, in typed words of a line or two."""
    try:
        model = load_model(path)
    except (CheckpointError, Unsupported) as error:
        told = str(error)
        assert str(path) in error.what and error.fix + error.why
        for word in ("Traceback", "Exception", "Error:", "site-packages", ".py", "\n"):
            assert word not in told, told
        assert len(told) < 700, told
        return False
    model(picture(model))
    return True


def numbered(state: State, number: object) -> list[tuple[str, State]]:
    """For every number in a key, the same checkpoint with one more layer, of another number."""
    added: dict[str, str] = {}
    for key in one_of_each(state):
        for found in re.finditer(r"(?<=\.)\d+(?=\.)", key):
            start, end = key[: found.start()], key[found.end() :]
            added.setdefault(re.sub(r"\d+", "#", start), f"{start}{number}{end}")
    return [(key, {**state, key: torch.ones(1)}) for key in added.values()]


# ---- keys ----


@pytest.mark.parametrize(("architecture", "count"), SAMPLED)
def test_without_any_single_key(architecture: str, count: int, tmp_path: Path) -> None:
    state = made(architecture)
    for key in sample(state, count):
        ends_well(write(tmp_path, saved({k: v for k, v in state.items() if k != key})))


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("Compact", "body.3.weight"),
        ("SPAN", "block_1.c1_r.sk.bias"),
        ("NAFNet", "ending.bias"),
        ("HAT", "layers.1.conv.bias"),
        ("DAT", "layers.0.blocks.1.norm1.weight"),
    ],
)
def test_a_missing_key_is_named(architecture: str, key: str, tmp_path: Path) -> None:
    state = {k: v for k, v in made(architecture).items() if k != key}
    error = refused(write(tmp_path, saved(state)), architecture, key, "missing")
    assert error.fix


@pytest.mark.parametrize("architecture", ALL)
def test_a_key_too_many_is_named(architecture: str, tmp_path: Path) -> None:
    state = {**made(architecture), "zoo": torch.ones(2), "zoo2": torch.ones(1)}
    path = write(tmp_path, saved(state))
    if architecture == MASKED:
        assert not ends_well(path)
    else:
        refused(path, "the key zoo is not part of", "(2 such keys)")


@pytest.mark.parametrize("number", ["99999999", "9" * 30, "1_000_000_000", "9" * 5000, "x"], ids=lambda n: n[:13])
@pytest.mark.parametrize("architecture", ALL)
def test_a_number_in_a_key_far_too_great(architecture: str, number: str, tmp_path: Path) -> None:
    for key, state in numbered(made(architecture), number):
        assert not ends_well(write(tmp_path, saved(state))), key


@pytest.mark.parametrize(("architecture", "count"), [*((each, 1) for each in QUICK), *EVERY])
def test_more_layers_than_the_file_holds(architecture: str, count: int, tmp_path: Path) -> None:
    for _, state in numbered(made(architecture), 2000)[:count]:
        ends_well(write(tmp_path, saved(state)))


# ---- shapes ----


@pytest.mark.parametrize(("architecture", "count"), [*((each, 2) for each in QUICK), *EVERY])
def test_whatever_shape_one_tensor_has_the_error_is_typed(architecture: str, count: int, tmp_path: Path) -> None:
    state = made(architecture)
    for key in sample(state, count):
        for value in reshaped(state[key]):
            ends_well(write(tmp_path, saved({**state, key: value.clone()})))


@pytest.mark.parametrize(("architecture", "count"), SAMPLED)
def test_sides_far_beyond_what_the_file_holds(architecture: str, count: int, tmp_path: Path) -> None:
    state = made(architecture)
    for key in sample(state, count):
        shape = list(state[key].shape) or [1]
        for side in range(len(shape)):
            huge = [*shape[:side], 2**40, *shape[side + 1 :]]
            for value in (
                torch.ones(1).expand(huge),
                torch.empty([0 if i == (side + 1) else n for i, n in enumerate(huge)] + [0]),
            ):
                error = refused(write(tmp_path, saved({**state, key: value})), key, "the file holds")
                assert error.fix


@pytest.mark.parametrize(
    ("architecture", "key", "shape"),
    [
        ("Compact", "body.0.weight", (60000, 3, 3, 3)),
        ("ESRGAN", "conv_first.weight", (100000, 3, 3, 3)),
        ("NAFNet", "intro.weight", (60000, 3, 3, 3)),
        ("SPAN", "conv_1.sk.weight", (60000, 3, 1, 1)),
        ("HAT", "conv_first.weight", (40008, 3, 3, 3)),
        ("HAT", "relative_position_index_SA", (2**20, 1)),
        ("HAT", "relative_position_index_OCA", (1, 2**18)),
        ("DAT", "conv_first.weight", (40008, 3, 3, 3)),
        ("DAT", "layers.0.blocks.2.attn.attn_mask_0", (2**11, 2**10, 1)),
        ("DRCT", "conv_first.weight", (40008, 3, 3, 3)),
        ("Swin2SR", "layers.0.residual_group.blocks.0.attn.relative_position_index", (2**19, 1)),
        ("GRL", "conv_first.weight", (40008, 3, 3, 3)),
        ("ATD", "relative_position_index_SA", (2**20, 1)),
    ],
)
def test_a_network_that_no_memory_holds(architecture: str, key: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    state = made(architecture)
    value = torch.zeros(shape, dtype=state[key].dtype if key in state else torch.float32)
    assert not ends_well(write(tmp_path, saved({**state, key: value})))


@pytest.mark.parametrize("value", [-1, 0, 255, 2**20, 2**62], ids=str)
def test_windows_of_any_size_in_the_values_of_a_table(value: int, tmp_path: Path) -> None:
    """DAT's windows are read off the last entry of a table."""
    state = made("DAT")
    key = "layers.0.blocks.0.attn.attns.0.rpe_biases"
    assert key in state
    changed = state[key].clone()
    changed[-1] = value
    assert not ends_well(write(tmp_path, saved({**state, key: changed})))


# ---- values ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("architecture", ALL)
def test_other_precisions_load_in_float32(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    if architecture == MASKED:
        pytest.skip("takes a mask")
    state = made(architecture)
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    rounded = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    model = load_model(write(tmp_path, saved(state)))
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float32}
    expected = load_model(write(tmp_path, saved(rounded)))
    assert model.spec == expected.spec
    for (key, value), other in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", QUICK)
def test_values_that_are_not_finite_are_counted(
    architecture: str, dtype: torch.dtype, value: float, tmp_path: Path
) -> None:
    state = {key: tensor.to(dtype) for key, tensor in made(architecture).items()}
    key = next(key for key, tensor in state.items() if key.endswith("weight") and tensor.ndim == 4)
    state[key] = state[key].clone()
    state[key].view(-1)[:2] = value
    refused(write(tmp_path, saved(state)), key, "2 values", "NaN or infinite")


def test_double_values_too_large_for_single_precision_are_not_finite(tmp_path: Path) -> None:
    state = {key: value.double() for key, value in made("Compact").items()}
    state["body.0.bias"][0] = 1e300
    refused(write(tmp_path, saved(state)), "body.0.bias", "1 values")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize(("architecture", "count"), SAMPLED)
def test_weights_that_are_no_floats(architecture: str, count: int, dtype: torch.dtype, tmp_path: Path) -> None:
    state = made(architecture)
    floats = [key for key in sample(state, count) if state[key].is_floating_point()]
    for key in floats:
        error = refused(write(tmp_path, saved({**state, key: state[key].to(dtype)})), key, str(dtype))
        assert error.fix


@pytest.mark.parametrize("value", [-1, 10**6, 2**62], ids=str)
def test_indices_out_of_range(value: int, tmp_path: Path) -> None:
    state = made("HAT")
    for key in ("relative_position_index_SA", "relative_position_index_OCA"):
        assert not ends_well(write(tmp_path, saved({**state, key: torch.full_like(state[key], value)}))) or value < 0


# ---- wrappers ----


def loads(content: object, expected: State, folder: Path, suffix: str = ".pth") -> Any:
    """Loads what was saved and compares what it makes of a picture with what the plain checkpoint makes of it."""
    data = safetensors.torch.save(content) if suffix == ".safetensors" else saved(content)
    model = load_model(write(folder, data, suffix))
    plain = load_model(write(folder, saved(expected)))
    assert model.spec == plain.spec
    assert torch.equal(model(picture(model)), plain(picture(model)))
    assert model.origin is not None
    return model.origin


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["module.", "netG.", "model.", "net_g.", "generator.", "_orig_mod.", "netG.module."])
@pytest.mark.parametrize("architecture", QUICK)
def test_prefixes(architecture: str, prefix: str, tmp_path: Path) -> None:
    state = made(architecture)
    loads({"state_dict": under(prefix, state), "epoch": 3}, state, tmp_path)


@pytest.mark.parametrize("architecture", QUICK)
def test_averaged_weights_are_taken(architecture: str, tmp_path: Path) -> None:
    good, raw = made(architecture), made(architecture, seed=1)
    origin = loads({"params": raw, "params_ema": good}, good, tmp_path)
    assert (origin.branch, origin.left_out) == ("params_ema", ("params",))
    lightning = {**under("model.", raw), **under("model_ema.", good)}
    loads({"state_dict": lightning, "pytorch-lightning_version": "2.4.0", "optimizer_states": [{}]}, good, tmp_path)


@pytest.mark.parametrize("architecture", QUICK)
def test_other_networks_and_an_optimizer_beside(architecture: str, tmp_path: Path) -> None:
    state = made(architecture)
    beside = {"features.0.weight": torch.zeros(8, 3, 3, 3), "linear.bias": torch.zeros(1)}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    for content in (
        {"net_g": state, "net_d": beside, "optimizer": optimizer},
        {"model": state, "optimizer": optimizer, "epoch": 3},
        {**under("netG.", state), **under("netD.", beside)},
        {**under("model.", state), **under("loss.vgg.", beside)},
    ):
        loads(content, state, tmp_path)


@pytest.mark.parametrize("architecture", QUICK)
def test_safetensors(architecture: str, tmp_path: Path) -> None:
    state = {key: value.contiguous() for key, value in made(architecture).items()}
    loads(state, state, tmp_path, ".safetensors")
    loads(under("module.", state), state, tmp_path, ".safetensors")


@pytest.mark.parametrize("prefix", ["", "module.", "netG.", "model.", "params_ema."])
def test_keys_of_the_first_esrgan_begin_as_a_wrapper_does(prefix: str, tmp_path: Path) -> None:
    state = made("ESRGAN")
    first = old(state)
    assert "model.0.weight" in first
    loads(under(prefix, first), state, tmp_path)
    if prefix != "params_ema.":
        loads({"params_ema": under(prefix, first), "params": under(prefix, made("ESRGAN", seed=1))}, state, tmp_path)


def test_a_cut_file(tmp_path: Path) -> None:
    for legacy in (False, True):
        whole = saved(made("SPAN"), legacy)
        for length in (1, 100, len(whole) // 2, len(whole) - 1):
            error = refused(write(tmp_path, whole[:length]), f"({length} bytes)")
            assert "truncated" in error.fix


# ---- unknown networks ----


def test_an_unknown_network_has_its_nearest_named(tmp_path: Path) -> None:
    state = made("SPAN")
    changed = {key.replace("conv_cat", "conv_dog"): value for key, value in state.items()}
    error = refused(write(tmp_path, saved(changed)), "the architecture is not known")
    assert re.search(r"Nearest are SPAN \(\d+ of the \d+ keys that tell it, not conv_cat.weight\)", error.why), (
        error.why
    )
    state = {key: value for key, value in made("DAT").items() if key != "norm.weight"}
    error = refused(write(tmp_path, saved(state)), "the architecture is not known")
    assert re.search(r"Nearest are DAT \(\d+ of the \d+ keys that tell it, not norm.weight\)", error.why), error.why
    error = refused(write(tmp_path, saved({f"body{i}.alpha": torch.ones(2) for i in range(5)})), "not known")
    assert "Nor is it a network that spandrel" in error.why and "Nearest" not in error.why


def test_a_network_that_takes_a_mask_is_unsupported(tmp_path: Path) -> None:
    keys = dict.fromkeys(("model.model.1.bn_l.running_mean", "generator.model.1.bn_l.running_mean"), torch.zeros(1))
    assert not ends_well(write(tmp_path, saved(keys)))


# ---- what loading leaves behind ----


@pytest.mark.parametrize("architecture", ["SPAN", "HAT"])
def test_loading_leaves_the_process_as_it_was(
    architecture: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path, saved(made(architecture)))
    (tmp_path / "bad").mkdir()
    bad = write(tmp_path / "bad", saved({**made(architecture), "zoo": torch.ones(1)}))
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    settings = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_device()
    filters, hook, out = list(warnings.filters), sys.excepthook, sys.stdout
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_model(good)
        refused(bad, "zoo")
    assert not [each for each in told if "spandrel" in str(each.filename) or "torch" in str(each.filename)]
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
    assert settings == (
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_device(),
    )  # fmt: skip
    assert (filters, hook, out) == (list(warnings.filters), sys.excepthook, sys.stdout)
    assert capfd.readouterr() == ("", "")
