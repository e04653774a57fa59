"""From a state dict to a network of spandrel's, checked as a checkpoint of our own families is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import CheckpointError, Unsupported
from ..inference import UNKNOWN_TASK
from ..spec import ModelSpec
from .library import architecture_of, load_spandrel
from .network import SpandrelRestorer
from .preparation import prepare
from .windows import free_the_batch

__all__ = ["load"]

LARGEST = 2**28
"""Elements of one tensor while a network is built (1 GiB in float32); a position index of window 64 has a sixteenth."""

STEPS = 2000
"""Tensor operations to build a network, for every tensor in its checkpoint: 50 times what the known ones take."""

GRIDS = ("window_size", "pad_size", "padder_size", "patch_size", "patch_sizes")
"""Attributes of networks that name a grid they pad pictures to."""

OWN_GRIDS = {"SCUNet": 64}
"""Grids that no attribute names, by architecture."""

SPLITS = "split_size"
"""Attribute of the attentions of DAT and RGT: the two sides of their windows."""

TASKS = {"SR": "super-resolution", "FaceSR": "face restoration", "Restoration": UNKNOWN_TASK}


class _Bounded(TorchDispatchMode):
    """Ends the building of a network that a hostile or damaged checkpoint makes huge."""

    def __init__(self, steps: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps = steps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.steps -= 1
        if self.steps < 0:
            raise ValueError("its numbers ask for a network of far more layers than the file holds")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() > LARGEST:
            raise ValueError(f"its numbers ask for a tensor of {' x '.join(map(str, result.shape))}")
        return result


def load(state: Mapping[str, Tensor], path: Path) -> SpandrelRestorer:
    """The network of a state dict, filled, with the operators of this package where they are the same mathematics.

    Args:
        state: One that `recognises` takes.
        path: Its file, for messages.

    Raises:
        CheckpointError: Keys or shapes do not fit the network, or a weight is not finite or no float.
        Unsupported: The network takes more than a picture, or does not return one in the same channels.
    """
    architecture = architecture_of(state)
    _check_values(state, architecture.id, path)
    free_the_batch(architecture.id)
    try:
        with _Bounded(STEPS * (len(state) + 100)):
            descriptor = architecture.load(dict(state))
    except (KeyError, IndexError, ValueError, TypeError, AssertionError, ArithmeticError, RuntimeError) as error:
        told = str(error).strip() or type(error).__name__
        what = f"the key {told} is missing" if isinstance(error, KeyError) else f"it does not fit: {_short(told)}"
        raise CheckpointError(
            f"{path}: looks like {architecture.id} (by spandrel), but {what.removesuffix('.')}.",
            fix="The file is incomplete, or of a variant of the network that spandrel does not know.",
        ) from error
    except MemoryError as error:
        raise CheckpointError(
            f"{path}: looks like {architecture.id} (by spandrel), but no memory holds such a network.",
            fix="The file is damaged: download it again.",
        ) from error
    _refuse(descriptor, path)
    return _restorer(descriptor)


def _check_values(state: Mapping[str, Tensor], name: str, path: Path) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            if key.endswith(("attn_mask", "mask")):
                continue
            raise CheckpointError(
                f"{path}: {key} of {name} holds {count} values that are NaN or infinite.",
                why="The training diverged or the file is damaged.",
                fix="Take an earlier checkpoint.",
            )
        if not value.is_floating_point() and key.endswith(".weight"):
            raise CheckpointError(
                f"{path}: {key} of {name} holds {value.dtype}, weights are floating-point numbers.",
                fix="Save the weights in floating point, as they were trained.",
            )


def _short(told: str) -> str:
    """The first two lines of what PyTorch or spandrel say, without the class that speaks."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]


def _refuse(descriptor: Any, path: Path) -> None:
    name = descriptor.architecture.id
    if not isinstance(descriptor, load_spandrel().ImageModelDescriptor):
        raise Unsupported(
            f"{path}: {name} (by spandrel) takes a mask besides the picture.",
            why="Files and runners here take pictures alone.",
        )
    taken, given = descriptor.input_channels, descriptor.output_channels
    if taken != given:
        raise Unsupported(
            f"{path}: {name} (by spandrel) takes {taken} channels and returns {given}.",
            why="A restored picture has the channels of its source here.",
        )


def _restorer(descriptor: Any) -> SpandrelRestorer:
    network: nn.Module = descriptor.model
    name, scale = descriptor.architecture.id, descriptor.scale
    multiple = _multiple(descriptor, network)
    window = getattr(network, "window_size", 1)
    spec = ModelSpec(
        family=f"spandrel/{name}",
        name=name.lower() + (f"_x{scale}" if scale > 1 else ""),
        task=TASKS[descriptor.purpose],
        scale=scale,
        channels=descriptor.input_channels,
        window_size=window if isinstance(window, int) else 1,
        pad_multiple=multiple,
        tiling=descriptor.tiling.name.lower(),
    )
    network.eval().requires_grad_(False)
    restorer = SpandrelRestorer(spec, network, descriptor._call_fn, square=descriptor.size_requirements.square)
    prepare(restorer)
    restorer.facts = {
        "architecture": name,
        "tags": list(descriptor.tags),
        "parameters": sum(each.numel() for each in network.parameters()),
        "half_by_spandrel": descriptor.supports_half,
        "attentions_as_operators": restorer.swapped,
    }
    return restorer


def _multiple(descriptor: Any, network: nn.Module) -> int:
    """What sides of the network's input must be multiples of: its own grid, so that it pads nothing itself.

    A least size becomes a multiple of the grid, too.
    """
    wanted = descriptor.size_requirements
    grid = math.lcm(max(1, wanted.multiple_of), OWN_GRIDS.get(descriptor.architecture.id, 1))
    for attribute in GRIDS:
        grid = math.lcm(grid, *_whole_numbers(getattr(network, attribute, ())))
    for module in network.modules():
        grid = math.lcm(grid, *_whole_numbers(getattr(module, SPLITS, ())))
    least: int = wanted.minimum
    return grid * max(1, -(-least // grid))


def _whole_numbers(value: Any) -> Iterable[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if type(each) is int and each > 0]
