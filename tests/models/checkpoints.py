"""Writing checkpoints and seeing them refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agileir_export.errors import CheckpointError
from agileir_export.models import (
    CHECKPOINT_SUFFIXES,
    load_model,
)

from ..export.networks import build

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

PICKLED = [suffix for suffix in CHECKPOINT_SUFFIXES if suffix != ".safetensors"]
FIRST = "conv_first.weight"
TABLE = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"


def state_of(kind: str = "swinir-classical") -> dict[str, Tensor]:
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
