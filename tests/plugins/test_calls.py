"""The listed operator calls against the calls that the networks of all presets make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from agileir_export.models import FAMILIES
from agileir_export.plugins import OPERATORS
from agileir_export.plugins.calls import Call
from agileir_export.plugins.catalogue import CALLS

from .variants import COARSER, STRAIGHT

SIMILAR = {"scale", "upsampler", "task", "channels", "noise_level", "depths", "final_depth", "resi_connection"}
"""Hyper-parameters that no operator sees."""

Seen = tuple[str, tuple[int, ...], tuple[tuple[int, ...], ...]]


class Watch(TorchDispatchMode):
    """Notes the operator calls of a network: name, integers, and the shapes of all that does not vary with images."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Seen] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function.namespace == "agileir":
            shapes = [tuple(each.shape) for each in args if isinstance(each, Tensor)]
            numbers = tuple(each for each in args if isinstance(each, int))
            self.seen.add(noted(function._opname, numbers, shapes))
        return function(*args, **(kwargs or {}))


def noted(operator: str, numbers: tuple[int, ...], shapes: list[tuple[int, ...]]) -> Seen:
    (registered,) = (each for each in OPERATORS.values() if each.torch_name == operator)
    image, *rest = zip(registered.inputs, shapes, strict=True)
    fixed = [shape if name not in registered.integer_tensors else shape[1:] for name, shape in rest]
    return operator, numbers, (image[1][3:], *fixed)


def of_call(call: Call) -> Seen:
    window = call.attributes["window_size"]
    return noted(call.operator, tuple(call.attributes.values()), call.shapes(1, window, window))


def of_presets() -> set[Seen]:
    """What one preset of every architecture calls, with two layers a stage, of which the second is shifted."""
    watch, done = Watch(), set()
    for family in FAMILIES.values():
        for name, preset in family.presets.items():
            shape = family.complete(preset)
            architecture = repr(sorted((key, value) for key, value in shape.items() if key not in SIMILAR | {"name"}))
            if architecture in done:
                continue
            done.add(architecture)
            short = {"depths": (2,) * len(shape["depths"])} if "depths" in shape else {}
            short |= {"final_depth": 2} if "final_depth" in shape else {}
            with torch.device("meta"), torch.no_grad(), watch:
                network: Any = family.build(name=name, **preset | short).eval()
                side = network.spec.pad_multiple
                network(torch.empty(1, network.spec.channels, side, 2 * side))
    return watch.seen


def test_the_calls_are_those_of_the_presets() -> None:
    seen = of_presets()
    assert {of_call(call) for call in CALLS} <= seen, "a call that no preset makes"
    assert seen <= {of_call(call) for call in (*CALLS, *STRAIGHT, *COARSER)}, "a preset makes a call that is not listed"
