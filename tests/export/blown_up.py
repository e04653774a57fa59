"""Networks whose residual stream outgrows float16, as published ones do: it grows from stage to stage."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from agileir_export.export import OnnxArtifact, read_artifact
from agileir_export.models import Restorer, fold, pad_images
from agileir_export.models.agileir import GroupAttention
from agileir_export.models.columnar import ColumnarNetwork
from agileir_export.models.layers import Block, Stage
from agileir_export.parity import ParityImage
from agileir_export.parity.probe import OnnxProbe
from agileir_export.parity.ranges import padded

ENOUGH = 5e5
"""A magnitude well past float16's 65504."""


# ---- exported files ----

LAST_LINEAR = re.compile(r"\.(mlp\.fc2|conv|conv\.4)\.(weight\^T|weight|bias)$")
"""Weights of the last linear map of every MLP and stage."""


def blow_up_file(artifact: OnnxArtifact, path: Path, image: ParityImage, amax: float = ENOUGH) -> OnnxArtifact:
    """A copy of a file whose MLPs and stages write `g` times as much, so that a block's output passes the figure."""
    original = onnx.load(artifact.path)
    gain = 1.0
    for _ in range(40):
        louder = copy.deepcopy(original)
        for tensor in louder.graph.initializer:
            if LAST_LINEAR.search(tensor.name):
                values = numpy_helper.to_array(tensor) * np.float32(gain)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        _, outputs = OnnxProbe(louder, artifact.blocks).run(padded(artifact, image))
        short = amax / max(float(np.abs(output).max()) for output in outputs)
        if short < 1:
            onnx.save(louder, path)
            return read_artifact(path)
        gain *= (1.2 * short) ** (1 / 3)
    raise AssertionError(f"the stream does not grow past {amax:g}")


# ---- models ----


def magnitudes(model: Restorer, images: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Greatest magnitude and standard deviation of the output of every block and stage, in the order computed."""
    found: dict[str, tuple[float, float]] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Block | Stage):

            def hook(*call: Any, name: str = name) -> None:
                found[name] = float(call[-1].abs().max()), float(call[-1].std())

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model.network(pad_images(images, model.spec.pad_multiple))
    for handle in handles:
        handle.remove()
    return found


def blow_up(model: Restorer, images: torch.Tensor, amax: float = ENOUGH) -> Restorer:
    """A folded copy whose branches and stages write `g` times as much, so that the stream passes the figure."""
    folded = fold(model)
    gain = 1.0
    for _ in range(40):
        louder = copy.deepcopy(folded)
        _scale_branches(louder, gain)
        for stage in louder.modules():
            if isinstance(stage, Stage):
                last = stage.conv[-1] if isinstance(stage.conv, nn.Sequential) else stage.conv
                _scale(last.parameters(), gain)
        short = amax / max(reached for reached, _ in magnitudes(louder, images).values())
        if short < 1:
            return louder
        gain *= (1.2 * short) ** (1 / 3)
    raise AssertionError(f"the stream does not grow past {amax:g}")


def louder_stream(model: Restorer, gain: float) -> Restorer:
    """A folded copy whose stream is `gain` times as large everywhere, and whose pictures are the same.

    What writes the stream is multiplied: entry LayerNorm, branches, biases of the stages' convolutions. What reads it
    are LayerNorms (to which their epsilon is a little smaller) and those convolutions.
    """
    louder = fold(model)
    assert isinstance(louder, ColumnarNetwork)
    _scale_branches(louder, gain)
    _scale(louder.patch_embed.parameters(), gain)
    for stage in louder.layers:
        assert isinstance(stage, Stage)
        _scale((weight for name, weight in stage.conv.named_parameters() if name.endswith("bias")), gain)
    return louder


def _scale_branches(network: nn.Module, gain: float) -> None:
    """Multiplies the last linear map of every attention and MLP."""
    for block in network.modules():
        if isinstance(block, Block):
            _scale(block.mlp.fc2.parameters(), gain)
            if isinstance(block.attn, GroupAttention):
                _scale((block.attn.get_buffer("proj_weight"), block.attn.get_buffer("proj_bias")), gain)
            else:
                assert isinstance(block.attn.proj, nn.Linear)
                _scale(block.attn.proj.parameters(), gain)


@torch.no_grad()
def _scale(weights: Iterable[torch.Tensor], gain: float) -> None:
    for weight in weights:
        weight.mul_(gain)
