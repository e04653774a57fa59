"""Bounds on what the numbers in a checkpoint may ask for: those of a damaged or hostile file ask for anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["Bounded", "check_numbers"]

LARGEST = 2**28
"""Elements of one tensor while a network is built (1 GiB in float32); a position index of window 64 has a sixteenth."""

MADE = 8
"""Elements made while a network is built, besides `LARGEST` of them, for every one in its checkpoint: known networks
make one to four, and position indices and masks."""

STEPS = 50
"""Tensor operations to build a network, for every tensor in its checkpoint: five times what the known ones take."""

LOOKS = 2**23
"""The greatest number in a key, times the keys: recognising code looks through all keys for every layer it expects."""


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Refuses keys whose numbers ask for far more layers than there are.

    Raises:
        ValueError: With what is wrong.
    """
    numbers = ((number, key) for key in state for part in key.split(".") for number in _number(part))
    greatest, key = max(numbers, default=(0, ""))
    if greatest * len(state) > LOOKS:
        raise ValueError(f"its key {key} asks for far more layers than the file holds")


def _number(part: str) -> Iterator[int]:
    """What `int` makes of a part of a key, where it is a number: spandrel counts layers by it."""
    try:
        yield int(part)
    except ValueError:
        return


class Bounded(TorchDispatchMode):
    """Ends the building of a network that a hostile or damaged checkpoint makes huge, before the memory is taken.

    Args:
        state: The checkpoint, which says how large the network may become.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps = STEPS * (len(state) + 100)
        self.left = MADE * sum(value.numel() for value in state.values()) + LARGEST

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.steps -= 1
        if self.steps < 0:
            raise ValueError("its numbers ask for far more layers than the file holds")
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        if _at_most(args, kwargs) > LARGEST:  # seldom: what it makes is found without making it
            self._take(_shapes_only(func, args, kwargs), 0)
        result = func(*args, **kwargs)
        self._take(result)
        return result

    def _take(self, made: Any, share: int = 1) -> None:
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.left -= share * tensor.numel()
                if tensor.numel() > LARGEST or self.left < 0:
                    raise ValueError(f"its numbers ask for a tensor of {' x '.join(map(str, tensor.shape))}")


def _at_most(args: Any, kwargs: Any) -> float:
    """A bound on the elements that an operation makes: all its numbers multiplied."""
    leaves = (each.numel() if isinstance(each, Tensor) else each for each in tree_leaves((args, kwargs)))
    return math.prod(float(max(1, abs(each))) for each in leaves if type(each) in (int, float))


def _shapes_only(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation makes, without its values; None where its size depends on values, and so on what there is."""
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    if "device" in kwargs:
        kwargs["device"] = torch.device("meta")
    try:
        return func(*args, **kwargs)
    except NotImplementedError:
        return None
