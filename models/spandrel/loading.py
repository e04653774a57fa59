"""From a state dict to a network of spandrel's, checked as a checkpoint of our own families is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import AgileIRError, CheckpointError, Unsupported
from ...quiet import quiet
from ..inference import UNKNOWN_TASK
from ..spec import ModelSpec
from .bounds import Bounded, check_numbers
from .library import architecture_of, load_spandrel
from .network import SpandrelRestorer
from .preparation import FACES, prepare
from .windows import free_the_batch

__all__ = ["load"]

LARGEST_GRID = 1024
"""Pixels that sides of a picture may have to be multiples of."""

GRIDS = ("window_size", "pad_size", "padder_size", "patch_size", "patch_sizes")
"""Attributes of networks that name a grid they pad pictures to."""

OWN_GRIDS = {"FBCNN": 8, "SCUNet": 64}
"""Grids that no attribute names, by architecture."""

INNER_GRIDS = ("split_size", "window_size", "ws")
"""Attributes of attentions inside, which see as many tokens as the picture has pixels: the sides of their windows."""

TASKS = {"SR": "super-resolution", "FaceSR": FACES, "Restoration": UNKNOWN_TASK}


MOST_SHOWN = 200
"""Characters of a key, or of what a library says, that are shown."""

MISFITS = (
    (r'Missing key\(s\) in state_dict: "(?P<keys>.*)"', "the key {key} of {name} is missing ({count} in all)"),
    (r'Unexpected key\(s\) in state_dict: "(?P<keys>.*)"', "the key {key} is not part of {name} ({count} such keys)"),
    (
        r"size mismatch for (?P<keys>.*?): .*?Size\(\[(?P<given>.*?)\]\).*?Size\(\[(?P<wanted>.*?)\]\)",
        "{key} has shape ({given}), {name} needs ({wanted})",
    ),
)
"""What PyTorch says of keys and shapes that do not fit, and the sentence that the reader gets."""


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
    name = f"{architecture.id} (by spandrel)"
    state = _values(state, name, path)
    free_the_batch(architecture.id)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            check_numbers(state)
            with Bounded(state):
                descriptor = architecture.load(dict(state))
            _refuse(descriptor, path)
            for key, value in descriptor.model.state_dict().items():
                if key in state and value.is_floating_point() != state[key].is_floating_point():
                    raise _of_another_type(key, state[key], name, path)
            return _restorer(descriptor)
    except AgileIRError:
        raise
    except Exception as error:  # whatever numbers that do not fit make the code of a network trip over
        raise CheckpointError(
            f"{path}: looks like {name}, but {_misfit(error, architecture.id)}.",
            fix="The file is incomplete, damaged, or of a variant of the network that spandrel does not know.",
        ) from error


def _values(state: Mapping[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """A state dict with its weights in float32, all of them finite."""
    values = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    for key, value in values.items():
        if key.endswith(("weight", "bias")) and not value.is_floating_point():
            raise _of_another_type(key, value, name, path)
        if not key.endswith("mask") and (count := int((~torch.isfinite(value)).sum())):
            raise CheckpointError(
                f"{path}: {key} of {name} holds {count} values that are NaN or infinite.",
                why="The training diverged or the file is damaged.",
                fix="Take an earlier checkpoint.",
            )
    return values


def _of_another_type(key: str, value: Tensor, name: str, path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: {key} of {name} holds {value.dtype}, weights are floating-point numbers.",
        fix="Save the weights in floating point, as they were trained.",
    )


def _misfit(error: Exception, name: str) -> str:
    """What an error says of a checkpoint and its network, in one sentence without a stop."""
    told = str(error).strip() or type(error).__name__
    if isinstance(error, KeyError) and error.args:
        return f"the key {error.args[0]} is missing"
    for pattern, sentence in MISFITS:
        if found := re.search(pattern, told):
            keys = found["keys"].split('", "')
            return sentence.format(name=name, key=keys[0][:MOST_SHOWN], count=len(keys), **found.groupdict())
    return f"it does not fit: {told.splitlines()[0][:MOST_SHOWN].removesuffix('.')}"


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
    if scale < 1 or multiple > LARGEST_GRID:
        raise ValueError(f"its pictures are scaled by {scale}, their sides multiples of {multiple} pixels")
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
    restorer.facts = {
        "architecture": name,
        "tags": list(descriptor.tags),
        "parameters": sum(each.numel() for each in network.parameters()),
        "half_by_spandrel": descriptor.supports_half,
    }
    prepare(restorer)
    restorer.facts = {**restorer.facts, "attentions_as_operators": restorer.swapped}
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
        for attribute in INNER_GRIDS:
            grid = math.lcm(grid, *_whole_numbers(getattr(module, attribute, ())))
    least: int = wanted.minimum
    return grid * max(1, -(-least // grid))


def _whole_numbers(value: Any) -> Iterable[int]:
    values = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if type(each) is int and each > 0]
