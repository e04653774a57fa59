"""Loading what cannot be loaded: typed errors with file, first key and a way out; no code runs."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from agileir_export.errors import AgileIRError, CheckpointError, InputError, ModelNameError
from agileir_export.models import (
    CHECKPOINT_SUFFIXES,
    load_model,
    packaged_models,
    preset_names,
    read_state,
)

from .small import build

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

PICKLED = [suffix for suffix in CHECKPOINT_SUFFIXES if suffix != ".safetensors"]
FIRST = "conv_first.weight"
TABLE = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"


def state_of(kind: str = "swinir") -> dict[str, Tensor]:
    return dict(build(kind).state_dict())


def saved(content: object, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def refused(path: str | Path, *parts: str, **options: Any) -> CheckpointError:
    """Loads, expects a CheckpointError that names the file and each part; returns it."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path, **options)
    error = caught.value
    assert type(error) is CheckpointError
    assert (error.code, error.exit_code) == ("input.checkpoint", 2)
    for part in (str(path), *parts):
        assert part in error.what, part
    for word in ("Traceback", "Exception", "Error:", "\n"):
        assert word not in str(error)
    return error


def write(folder: Path, content: bytes, suffix: str = ".pth") -> Path:
    path = folder / f"weights{suffix}"
    path.write_bytes(content)
    return path


# ---- files that are no checkpoints ----


def test_the_suffixes() -> None:
    assert CHECKPOINT_SUFFIXES == (".pth", ".pt", ".ckpt", ".safetensors")


@pytest.mark.parametrize("suffix", CHECKPOINT_SUFFIXES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"PK",
        b"PK\x03\x04",
        b"just a text file\n" * 20,
        b"<!DOCTYPE html><html>404</html>",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"(dp0\nS'a'\np1\nI1\ns.",
        bytes(1000),
        b"\xff" * 1000,
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": 1} ',
    ],
    ids=range(13),
)
def test_other_files(suffix: str, content: bytes, tmp_path: Path) -> None:
    error = refused(write(tmp_path, content, suffix), f"({len(content)} bytes)")
    assert error.why and error.fix


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", PICKLED)
def test_truncated_pickles(suffix: str, legacy: bool, tmp_path: Path) -> None:
    whole = saved(state_of(), legacy)
    lengths = {1, 2, 3, 7, 20, 50, 100, 500, 1000, 5000, len(whole) // 2, len(whole) - 1}
    for length in sorted(lengths | set(range(4, 400, 23))):
        error = refused(write(tmp_path, whole[:length], suffix), f"({length} bytes)")
        assert "truncated" in error.fix
    write(tmp_path, whole, suffix)
    load_model(tmp_path / f"weights{suffix}")


def test_truncated_safetensors(tmp_path: Path) -> None:
    whole = safetensors.torch.save(state_of())
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        error = refused(write(tmp_path, whole[:length], ".safetensors"), f"({length} bytes)")
        assert "truncated" in error.fix


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_bytes_give_typed_errors_or_nothing(form: str, tmp_path: Path) -> None:
    state = {FIRST: torch.zeros(2, 3), "other": torch.ones(3)}
    suffix = ".safetensors" if form == "safetensors" else ".pth"
    whole = safetensors.torch.save(state) if form == "safetensors" else saved(state, form == "legacy")
    generator = torch.Generator().manual_seed(0)
    seen = 0
    for place in torch.randint(len(whole), (250,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        try:
            load_model(write(tmp_path, bytes(damaged), suffix))
        except CheckpointError:
            seen += 1
    assert seen == 250  # these two tensors are no network in any case


def test_folders_missing_files_and_other_suffixes(tmp_path: Path) -> None:
    folder = tmp_path / "folder.pth"
    folder.mkdir()
    refused(folder, "is a folder")
    refused(tmp_path, "is a folder")
    refused(tmp_path / "absent.pth", "does not exist")
    for name in ("weights.bin", "weights.onnx", "weights", "pth"):
        path = tmp_path / name
        path.write_bytes(saved(state_of()))
        error = refused(path, "not a checkpoint format")
        assert ".safetensors" in error.fix
    with pytest.raises(ModelNameError, match=r"absent\.bin"):
        load_model(tmp_path / "absent.bin")
    with pytest.raises(CheckpointError, match=r"no\.pth: the checkpoint does not exist"):
        load_model("agileir_tiny_x2", weights=tmp_path / "no.pth")


# ---- pickles with code in them ----


class Touch:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


class Shell(Touch):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


class Evaluate(Touch):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return eval, (f"open({str(self.path)!r}, 'w')",)


class Rebuild(Touch):
    """Hides the call behind functions that tensors are rebuilt with."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return torch._utils._rebuild_parameter, (Shell(self.path), False, {})


@pytest.mark.parametrize("suffix", CHECKPOINT_SUFFIXES)
@pytest.mark.parametrize("bomb", [Touch, Shell, Evaluate, Rebuild])
def test_code_in_a_pickle_never_runs(bomb: type[Touch], suffix: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    state = state_of()
    contents = {
        "zip": saved({**state, "extra": bomb(mark)}),
        "legacy": saved({**state, "extra": bomb(mark)}, legacy=True),
        "wrapped": saved({"params": state, "args": bomb(mark)}),
        "alone": saved(bomb(mark)),
        **{f"pickle {p}": pickle.dumps(bomb(mark), protocol=p) for p in range(6)},
    }
    for name, content in contents.items():
        error = refused(write(tmp_path, content, suffix))
        assert not mark.exists(), name
        if suffix != ".safetensors" and not name.startswith("pickle"):
            assert "which could run code" in error.what, name
            assert "Nothing was run" in error.fix, name
    # the bombs do go off when opened carelessly
    with contextlib.suppress(AttributeError):
        pickle.loads(contents["pickle 4"])
    assert mark.exists()


def test_a_pickled_module_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    error = refused(write(tmp_path, saved(torch.nn.Linear(2, 2))), "could run code")
    assert "torch.nn.modules.linear.Linear" in error.why
    assert "state_dict()" in error.fix


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("suffix", PICKLED)
def test_a_torchscript_archive_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"script{suffix}"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    assert "TorchScript" in refused(path).why


def test_another_zip_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "archive.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.py", "raise SystemExit")
    refused(path, "cannot be read")


# ---- contents that are no state dict ----


def cyclic() -> dict[str, Any]:
    state: dict[str, Any] = {}
    state["model"] = state
    return state


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({}, ("without entries",)),
        ({"params": {}}, ("without entries",)),
        ([torch.ones(1)], ("holds no state dict", "list")),
        (torch.ones(3), ("holds no state dict", "Tensor")),
        (None, ("holds no state dict", "NoneType")),
        (3.5, ("holds no state dict", "float")),
        ({0: torch.ones(1)}, ("the entry 0",)),
        ({"first": torch.ones(1), 7: torch.ones(1)}, ("the entry 7",)),
        ({"net": {FIRST: torch.ones(1)}}, ("'net'", "dict", "not a tensor")),
        ({FIRST: torch.ones(1), "lr": 1e-4}, ("'lr'", "float", "not a tensor")),
        ({"state_dict": {FIRST: [1.0]}}, (f"'{FIRST}'", "list")),
        ({"params_ema": torch.ones(2)}, ("the architecture is not known",)),
        (cyclic(), ("'model'", "dict")),
    ],
    ids=range(13),
)
def test_contents_that_are_no_state_dict(content: object, parts: tuple[str, ...], tmp_path: Path) -> None:
    assert refused(write(tmp_path, saved(content)), *parts).fix


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(12, 3, 3, 3).to_sparse(),
        torch.ones(12, 3, 3, 3, device="meta"),
        torch.ones(12, 3, 3, 3, dtype=torch.int64),
        torch.ones(12, 3, 3, 3, dtype=torch.bool),
        torch.ones(12, 3, 3, 3, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "integer", "bool", "complex"],
)
def test_tensors_of_other_kinds(tensor: Tensor, tmp_path: Path) -> None:
    error = refused(write(tmp_path, saved({**state_of(), FIRST: tensor})), FIRST)
    assert error.fix


# ---- state dicts that do not fit ----


@pytest.mark.parametrize("suffix", CHECKPOINT_SUFFIXES)
def test_an_unknown_architecture(suffix: str, tmp_path: Path) -> None:
    state = {f"body.{i}.weight": torch.ones(2) for i in range(5)}
    content = safetensors.torch.save(state) if suffix == ".safetensors" else saved(state)
    error = refused(write(tmp_path, content, suffix), "architecture is not known")
    assert "body.0.weight" in error.why
    for family in ("agileir", "semanir", "swinir"):
        assert family in error.why


KINDS = ("swinir", "swinir-real", "agileir", "semanir", "semanir-unet")


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


def one_of_each(state: dict[str, Tensor]) -> list[str]:
    """Of keys that differ in their numbers alone, the first and the last; without counters."""
    by_name: dict[str, list[str]] = {}
    for key in state:
        by_name.setdefault(re.sub(r"\d+", "#", key), []).append(key)
    return [
        key
        for name, keys in by_name.items()
        for key in sorted({keys[0], keys[-1]})
        if not name.endswith("num_batches_tracked")
    ]


def reshaped(value: Tensor) -> list[Tensor]:
    """The same tensor in shapes that fit nothing, or something else."""
    ones = value.new_ones
    return [
        ones(()),
        ones(0),
        ones(1),
        ones(5),
        ones(*value.shape, 1),
        ones(1, *value.shape),
        value[:0],
        value[..., :0],
        value[:1],
        value[..., :1],
        value.repeat(2, *[1] * (value.ndim - 1)) if value.ndim else ones(2),
    ]


@pytest.mark.parametrize("kind", ["swinir", "swinir-real", "agileir", "semanir", "semanir-unet"])
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
    refused(write(tmp_path, saved(state)), "layers.2", "missing")
    state = {k: v for k, v in state_of("agileir").items() if ".groupatt.qkvs.1." not in k}
    refused(write(tmp_path, saved(state)), "blocks.0.attn.groupatt.qkvs.1", "missing")


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
