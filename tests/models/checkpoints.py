"""Writing checkpoints and seeing them refused."""

from __future__ import annotations

import io
import re
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
    for word in ("Traceback", "Exception", "Error:", "site-packages", ".py", "\n"):
        assert word not in str(error)
    return error


def write(folder: Path, content: bytes, suffix: str = ".pth") -> Path:
    path = folder / f"weights{suffix}"
    path.write_bytes(content)
    return path


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
