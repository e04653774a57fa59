"""What is done to a network before it is traced, each step proven on numbers: the same mathematics in fewer nodes.

Window attention of Swin's kind (HAT, DRCT) becomes the operator of this package, so that no mask of one size is in the
graph; convolutions that are put together anew at every call (SPAN) are put together once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .calls import CALLS
from .network import SpandrelRestorer
from .window_block import WindowBlock, window_block

__all__ = ["FACES", "TOLERANCE", "prepare"]

TOLERANCE = 1e-5
"""Greatest difference of a module that is put in place of another, of the greatest magnitude of its output."""

MOST_BLOCKS = 200
"""Blocks that an exported file names at most."""

FACES = "face restoration"
"""Task of networks for aligned faces."""


def prepare(restorer: SpandrelRestorer) -> None:
    """Swaps what can be swapped, in place, and marks the blocks of the network.

    Raises:
        ValueError: The network does not return pictures of the size that its scale says.
        RuntimeError: It cannot be run.
    """
    network = restorer.net
    found = {name: (module, _stand_in(module)) for name, module in network.named_modules()}
    stand_ins = {name: stand_in for name, (_, stand_in) in found.items() if stand_in is not None}
    listed = dict(_listed(network))
    images = _picture(restorer)
    calls = _Calls({**listed, **{name: found[name][0] for name in stand_ins}})
    with calls, torch.no_grad():
        before = restorer.network(images)
    if before.shape != (1, restorer.spec.channels, *(side * restorer.spec.scale for side in images.shape[2:])):
        raise ValueError(f"it makes {tuple(before.shape)} of {tuple(images.shape)}, its scale is {restorer.spec.scale}")
    _call_otherwise(restorer, images, before)
    agreeing = {name: each for name, each in stand_ins.items() if _agrees(each, calls.seen.get(name))}
    for name, stand_in in agreeing.items():
        network.set_submodule(name, stand_in)
    blocks = [name for name, each in agreeing.items() if isinstance(each, WindowBlock)]
    if blocks and agreeing.keys() == stand_ins.keys():
        _leave_out_masks(restorer, images, before)
    restorer.swapped = len(blocks)
    once = [name for name in (*listed, *blocks) if calls.count[name] == 1 and calls.seen.get(name) is not None]
    restorer.marked = tuple(f"net.{name}" for name in dict.fromkeys(once))[:MOST_BLOCKS]


def _call_otherwise(restorer: SpandrelRestorer, images: Tensor, before: Tensor) -> None:
    """Takes another call of the network (`CALLS`), where it returns the same."""
    theirs = restorer.call
    restorer.call = CALLS.get(restorer.facts["architecture"], theirs)
    with torch.no_grad():
        if restorer.call is not theirs and not _close(restorer.network(images), before):
            restorer.call = theirs


def _picture(restorer: SpandrelRestorer) -> Tensor:
    """A picture of three by two cells of the network's grid, at least 48 by 32 pixels: with shifted windows inside.

    For a network of faces, whose size is fixed as a rule, it is one cell.
    """
    multiple = restorer.spec.pad_multiple
    cells = -(-16 // multiple)
    rows, columns = (1, 1) if restorer.spec.task == FACES else (3, 2)
    size = (rows * cells * multiple, columns * cells * multiple)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, restorer.spec.channels, *size, generator=generator)


def _listed(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules in the lists right below the network: its stages or blocks."""
    for name, container in network.named_children():
        if isinstance(container, nn.ModuleList | nn.Sequential) and len(container) > 1:
            yield from ((f"{name}.{index}", module) for index, module in container.named_children())


class _Calls:
    """Records how modules are called, and what they return, while it is entered.

    Attributes:
        seen: Arguments and result by name, where the result is a tensor; of the last call.
        count: Calls by name.
    """

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.seen: dict[str, tuple[tuple[Any, ...], dict[str, Any], Tensor]] = {}
        self.count: Counter[str] = Counter()
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        def hook(name: str) -> Callable[..., None]:
            def record(module: nn.Module, arguments: Any, keywords: Any, result: Any) -> None:
                self.count[name] += 1
                if isinstance(result, Tensor):
                    given = tuple(each.clone() if isinstance(each, Tensor) else each for each in arguments)
                    self.seen[name] = (given, keywords, result.clone())  # what follows may work in place

            return record

        for name, module in self.modules.items():
            self.handles.append(module.register_forward_hook(hook(name), with_kwargs=True))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _stand_in(module: Any) -> nn.Module | None:
    """What may take a module's place; None where nothing is known to."""
    joined = getattr(module, "eval_conv", None)
    if hasattr(module, "update_params") and isinstance(joined, nn.Conv2d):  # SPAN's, of three and a skip
        return nn.Sequential(joined, *([nn.LeakyReLU(0.05)] if getattr(module, "has_relu", False) else []))
    return window_block(module)


def _agrees(stand_in: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any], Tensor] | None) -> bool:
    """Whether what would stand in for a module returns what that returned."""
    if call is None:
        return False
    arguments, keywords, expected = call
    try:
        with torch.no_grad():
            found = stand_in(*arguments, **keywords)
    except (TypeError, ValueError, RuntimeError):  # it is called in another way
        return False
    return _close(found, expected)


def _close(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def _leave_out_masks(restorer: SpandrelRestorer, images: Tensor, before: Tensor) -> None:
    """Masks that a network makes for blocks that need none any more are not made, where that changes nothing."""
    network = restorer.net
    if not hasattr(network, "calculate_mask"):
        return
    network.calculate_mask = _no_mask  # type: ignore[assignment]
    with torch.no_grad():
        try:
            same = _close(restorer.network(images), before)
        except (TypeError, AttributeError, RuntimeError):
            same = False
    if not same:
        del network.calculate_mask


def _no_mask(*_: Any, **__: Any) -> Tensor:
    return torch.zeros(1)
