"""Networks whose residual stream outgrows float16, as published ones do: it grows from stage to stage."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from agileir_export.models import Restorer, fold, pad_images
from agileir_export.models.agileir import GroupAttention
from agileir_export.models.layers import Block, Stage

Magnitudes = dict[str, tuple[float, float]]


def magnitudes(model: Restorer, images: torch.Tensor) -> Magnitudes:
    """Greatest magnitude and standard deviation of the output of every block and stage, in the order computed."""
    found: Magnitudes = {}

    @contextmanager
    def watching() -> Iterator[None]:
        handles = []
        for name, module in model.named_modules():
            if isinstance(module, Block | Stage):

                def hook(*call: object, name: str = name) -> None:
                    output = call[-1]
                    assert isinstance(output, torch.Tensor)
                    found[name] = float(output.abs().max()), float(output.std())

                handles.append(module.register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    with watching(), torch.no_grad():
        model.network(pad_images(images, model.spec.pad_multiple))
    return found


def blow_up(model: Restorer, images: torch.Tensor, amax: float = 5e5, std: float = 0.0) -> Restorer:
    """A folded copy whose branches write more from stage to stage, until the stream passes both figures.

    Only last linear maps of branches change: stage i of n writes ``g^(i+1)`` times as much.
    """
    folded = fold(model)
    stages = [module for module in folded.modules() if isinstance(module, Stage)]
    gain = 1.0
    for _ in range(40):
        louder = copy.deepcopy(folded)
        for number, stage in enumerate(module for module in louder.modules() if isinstance(module, Stage)):
            _scale_branches(stage, gain ** (number + 1))
        reached = magnitudes(louder, images).values()
        short = max(amax / max(a for a, _ in reached), std / max(s for _, s in reached))
        if short < 1:
            return louder
        gain *= (1.05 * short) ** (1 / len(stages))
    raise AssertionError(f"the stream does not grow past {amax:g}")


@torch.no_grad()
def _scale_branches(stage: nn.Module, gain: float) -> None:
    for block in stage.modules():
        if not isinstance(block, Block):
            continue
        weights = [block.mlp.fc2.weight, block.mlp.fc2.bias]
        if isinstance(block.attn, GroupAttention):
            weights += [block.attn.get_buffer("proj_weight"), block.attn.get_buffer("proj_bias")]
        else:
            projection = block.attn.proj
            assert isinstance(projection, nn.Linear)
            weights += [projection.weight, projection.bias]
        for weight in weights:
            weight.mul_(gain)
