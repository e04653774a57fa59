"""Engines for the stand-in of TensorRT: a plan, its sidecar, and a runner of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agileir_export.engines.cuda_driver import Device, Gpu
from agileir_export.engines.profiles import Profile
from agileir_export.engines.tensorrt import plan_loading
from agileir_export.engines.tensorrt import runner as tensorrt
from agileir_export.engines.tensorrt.runner import TensorRTRunner

from ..export import networks
from .fake_cuda import NumpyMemory
from .fake_tensorrt import Module, make_plan
from .sidecars import describe

KIND = "swinir-light"
"""RGB, scale 2, multiples of 4."""


def network(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The model of `KIND`, which TensorRT would run; sizes must be its multiples."""
    assert images.shape[2] % 4 == images.shape[3] % 4 == 0
    with torch.no_grad():
        output: np.ndarray[Any, Any] = networks.shared(KIND)(torch.from_numpy(images.copy())).numpy()
    return output


def doubled(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every pixel four times, plus one: what a test can foresee, and fast."""
    return images.repeat(2, axis=2).repeat(2, axis=3) + 1


def profile(*sizes: tuple[int, int, int]) -> Profile:
    """From one size (minimum, optimum and maximum), or from minimum and maximum."""
    return Profile(sizes[0], sizes[-1], sizes[-1])


def write_engine(
    folder: Path,
    profiles: Sequence[Profile],
    *,
    target: str = "tensorrt",
    sidecar_profiles: Sequence[Profile] | None = None,
    facts: dict[str, Any] | None = None,
    **plan: Any,
) -> Path:
    """A plan for the stand-in and its sidecar."""
    spec = networks.shared(KIND).spec
    path = folder / "model.plan"
    path.write_bytes(make_plan(profiles, scale=spec.scale, channels=spec.channels, **plan))
    told = tuple(profiles if sidecar_profiles is None else sidecar_profiles)
    known = {"target_version": "11.4.0.106", "gpu": "NVIDIA L4 (8.9)", **(facts or {})}
    return describe(path, spec, target=target, profiles=told, gpus=("sm89",), facts=known).path


def here(patch: pytest.MonkeyPatch, module: Module) -> None:
    """Puts a stand-in where TensorRT would be, on a machine with a GPU."""
    devices = (Device(0, "NumPy", (8, 9)),)
    patch.setattr(tensorrt, "load_target", lambda target: module)
    patch.setattr(plan_loading, "probe_gpu", lambda: Gpu((13, 0), devices))


def open_engine(path: Path, module: Module, **options: Any) -> tuple[TensorRTRunner, NumpyMemory]:
    """A runner, after `here`, and the memory it works in."""
    memory = NumpyMemory(
        module.gpu, **{key: options.pop(key) for key in ("captures", "refuses_capture") if key in options}
    )
    return TensorRTRunner(path, memory, **options), memory
