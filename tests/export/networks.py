"""Networks of every family, as small as still show every part of an exported graph, and their exported files."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from agileir_export.engines import create_session
from agileir_export.export import OnnxArtifact, export_onnx
from agileir_export.models import FAMILIES, Restorer, randomise

WINDOWED: dict[str, Any] = {"embed_dim": 12, "window_size": 4}
SWINIR = {**WINDOWED, "family": "swinir", "depths": (2,), "num_heads": (2,)}
AGILEIR = {**WINDOWED, "family": "agileir", "depths": (2, 1), "num_heads": (3, 3), "key_dims": (4, 4), "scale": 2}
BIAS = {"depths": (2,), "num_heads": (3,), "key_dims": (4,), "scale": 3, "batch_norm": False}
LIGHT = {"depths": (2, 1), "num_heads": (3, 2), "scale": 2, "upsampler": "pixelshuffledirect"}
REAL = {"depths": (1,), "scale": 4, "upsampler": "nearest+conv", "resi_connection": "3conv", "num_feat": 8}
JPEG = {"window_size": 7, "upsampler": "", "img_range": 255.0, "channels": 1, "task": "jpeg"}
SEMANIR = {**WINDOWED, "family": "semanir", "depths": (1, 2), "num_heads": 2, "top_k": 5, "scale": 3, "num_feat": 8}
UNET = {"embed_dim": 8, "depths": (2, 1), "final_depth": 1, "head_dim": 4, "window_size": 4, "top_k": 5, "channels": 1}
SHAPES = {
    "agileir": AGILEIR,
    "agileir-bias": AGILEIR | BIAS,
    "semanir": SEMANIR,
    "semanir-unet": {"family": "semanir", **UNET},
    "swinir-light": SWINIR | LIGHT,
    "swinir-classical": SWINIR | {"scale": 4, "upsampler": "pixelshuffle", "num_feat": 8},
    "swinir-real": SWINIR | REAL,
    "swinir-jpeg": SWINIR | JPEG,
    "agileir-mixed": AGILEIR | {"num_heads": (3, 2), "key_dims": (4, 6)},
}
"""Hyper-parameters by name; one name a family, form of its attention and reconstruction head."""

EXPORTED = tuple(kind for kind in SHAPES if kind != "agileir-mixed")
"""Those that export with functions; the attention of the other differs by stage."""

ONE_A_FAMILY = ("agileir", "semanir", "swinir-light")


def build(kind: str, seed: int | None = 0, **changes: Any) -> Restorer:
    """A network in evaluation mode, with random weights unless the seed is None; the same for the same arguments."""
    hyperparameters = {**SHAPES[kind], **changes}
    network = FAMILIES[hyperparameters.pop("family")].build(**hyperparameters)
    if seed is not None:
        randomise(network, seed)
    return network.eval()


@cache
def shared(kind: str) -> Restorer:
    """`build`, one object for all tests that only read it."""
    return build(kind)


@cache
def exported(folder: Path, kind: str, **options: Any) -> OnnxArtifact:
    """The exported file of `shared`, made once a session in the folder of that name."""
    name = "-".join([kind, *(f"{key}{value}" for key, value in options.items())])
    return export_onnx(shared(kind), folder / f"{name.replace(' ', '')}.onnx", **options)


def images(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random images ``[B, C, H, W]`` in 0..1."""
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def psnr(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """PSNR in dB for a peak of 1, nothing clamped."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == np.float32
    error = np.mean((actual.astype(np.float64) - expected) ** 2)
    return float(-10 * np.log10(error + 1e-30))


def named_sizes(source: onnx.ModelProto, *shape: int) -> dict[str, set[int]]:
    """Sizes that every named dimension of a file has, of all tensors together, for images of one shape."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    named = [value for value in model.graph.value_info if any(d.dim_param for d in value.type.tensor_type.shape.dim)]
    model.graph.output.extend(named)
    del model.graph.value_info[:]
    tensors = (model.graph.input[0], *model.graph.output)
    given = images(*shape)
    results = create_session(model.SerializeToString()).run(None, {"input": given})
    sizes: dict[str, set[int]] = defaultdict(set)
    for value, array in zip(tensors, (given, *results), strict=True):
        dimensions = value.type.tensor_type.shape.dim
        assert len(dimensions) == array.ndim, value.name
        for dimension, size in zip(dimensions, array.shape, strict=True):
            if dimension.dim_param:
                sizes[dimension.dim_param].add(size)
            elif dimension.HasField("dim_value"):
                assert dimension.dim_value == size, value.name
    return sizes
