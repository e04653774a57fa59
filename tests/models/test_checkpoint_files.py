"""Files and contents that are no checkpoints: refused by name, and nothing in them runs."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from agileir_export.errors import CheckpointError, ModelNameError
from agileir_export.models import (
    CHECKPOINT_SUFFIXES,
    load_model,
)

from .checkpoints import FIRST, PICKLED, refused, saved, state_of, write

# ---- files that are no checkpoints ----


def test_the_suffixes() -> None:
    assert CHECKPOINT_SUFFIXES == (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".tar")


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


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 67\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html lang=en><body>Sign in</body></html>", "a web page"),
        (b"\n\n  <!-- cached -->\n<HTML><head>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b'{"error": "Invalid username or password."}', "a server's error"),
        (gzip.compress(b"weights", mtime=0), "an archive"),
    ],
)
def test_what_is_saved_in_place_of_weights(suffix: str, content: bytes, kind: str, tmp_path: Path) -> None:
    error = refused(write(tmp_path, content, suffix), f"({len(content)} bytes)")
    assert f"It is {kind}" in error.why and "truncated" not in error.fix
    with pytest.raises(CheckpointError, match=kind):
        load_model("swinir_light_x2", weights=tmp_path / f"weights{suffix}")


def test_an_archive_named_tar(tmp_path: Path) -> None:
    (tmp_path / "inside").write_bytes(saved(state_of()))
    with tarfile.open(tmp_path / "weights.tar", "w") as archive:
        archive.add(tmp_path / "inside", "weights.pth")
    assert "Unpack" in refused(tmp_path / "weights.tar").fix


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
    for name in ("weights.zip", "weights.onnx", "weights", "pth"):
        path = tmp_path / name
        path.write_bytes(saved(state_of()))
        error = refused(path, "not a checkpoint format")
        assert ".safetensors" in error.fix
    with pytest.raises(ModelNameError, match=r"absent\.zip"):
        load_model(tmp_path / "absent.zip")
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
        ({"net": {FIRST: torch.ones(1)}}, ("the architecture is not known",)),
        ({FIRST: torch.ones(1), "lr": 1e-4}, ("the architecture is not known",)),
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
