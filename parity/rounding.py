"""Watching a half-precision graph at work: block by block, and what rounding does to every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import Images, create_session
from ..engines.onnxruntime.half_emulation import HALF, emulate_half
from .bisection import AFTER
from .probe import make_dictionaries_inputs
from .ranges import insert_behind

if TYPE_CHECKING:
    import onnx

__all__ = ["BlockWatch", "Rounding"]

COMPUTED = "/computed"
FIGURES = ("amax", "overflows", "underflows", "values")


@dataclass(frozen=True)
class Rounding:
    """What rounding did to the tensors of a block.

    Attributes:
        amax: Greatest finite magnitude before rounding.
        widest: The tensor that reaches it.
        overflows: Finite values that became infinite.
        underflows: Values other than zero that became zero.
        values: Number of values rounded.
    """

    amax: float = 0.0
    widest: str = ""
    overflows: int = 0
    underflows: int = 0
    values: int = 0

    def __add__(self, other: Rounding) -> Rounding:
        """Both together."""
        wider = max(self, other, key=lambda rounding: rounding.amax)
        counts = (self.overflows + other.overflows, self.underflows + other.underflows, self.values + other.values)
        return Rounding(wider.amax, wider.widest, *counts)


class BlockWatch:
    """An ONNX Runtime session that shows the output of every block of a half-precision graph.

    Args:
        graph: The model; not changed.
        blocks: Names of the blocks, in the order they are computed.
        alone: Give every block the outputs of the blocks before it as inputs, and count what rounding does.
        dictionaries: Make the dictionaries of a key-semantic model inputs.
    """

    def __init__(self, graph: onnx.ModelProto, blocks: Sequence[str], alone: bool, dictionaries: bool) -> None:
        import onnx
        from onnx.helper import make_tensor_value_info

        copy = deepcopy(graph)
        del copy.graph.value_info[:]
        self.dictionaries = make_dictionaries_inputs(copy) if dictionaries else []
        emulated = emulate_half(copy)
        self.blocks, self.alone = list(blocks), alone
        self.tensors: dict[str, list[str]] = {}
        main = emulated.graph
        if alone:
            owners = _owners(main, blocks)
            rounded = _rounded(main)
            for node in main.node:
                for position, name in enumerate(node.output):
                    if name in self.blocks:
                        node.output[position] = name + COMPUTED
            main.input.extend(make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in self.blocks)
            counters = {}
            for source, result in rounded:
                self.tensors.setdefault(owners[result], []).append(result)
                computed = result + COMPUTED if result in self.blocks else result
                counters[computed] = _count(source, computed, result)
            insert_behind(main, counters)
        self.images, self.outputs = main.output[0].name, [b + COMPUTED if alone else b for b in self.blocks]
        figures = [f"{name}/{figure}" for names in self.tensors.values() for name in names for figure in FIGURES]
        main.output.extend(onnx.ValueInfoProto(name=name) for name in (*self.outputs, *figures))
        self.figures = figures
        self.session = create_session(emulated.SerializeToString(), in_order=True)

    def run(
        self, images: Images, dictionaries: Sequence[Any], fed: Mapping[str, Images]
    ) -> tuple[dict[str, Images], dict[str, Rounding]]:
        """Runs padded images ``[B, C, H, W]``.

        Args:
            images: The graph's input.
            dictionaries: The dictionaries, where they are inputs.
            fed: Output of every block as input for the blocks after it, where they are taken alone.

        Returns:
            The output of every block, and the image under `AFTER`; what rounding did, by block and `AFTER`.
        """
        feeds = {self.session.get_inputs()[0].name: images, **dict(zip(self.dictionaries, dictionaries, strict=True))}
        if self.alone:
            feeds |= fed
        # a block whose output nobody reads is no input after optimisation
        known = {entry.name for entry in self.session.get_inputs()}
        feeds = {name: value for name, value in feeds.items() if name in known}
        image, *found = self.session.run([self.images, *self.outputs, *self.figures], feeds)
        outputs = dict(zip(self.blocks, found, strict=False)) | {AFTER: image}
        numbers = dict(zip(self.figures, found[len(self.blocks) :], strict=True))
        roundings: dict[str, Rounding] = {}
        for block, names in self.tensors.items():
            for name in names:
                amax, *counts = (numbers[f"{name}/{figure}"] for figure in FIGURES)
                one = Rounding(float(amax), name, *(int(count) for count in counts))
                roundings[block] = roundings.get(block, Rounding()) + one
        return outputs, roundings


def _owners(graph: onnx.GraphProto, blocks: Sequence[str]) -> dict[str, str]:
    """The block that a tensor is computed for: the first whose output depends on it; `AFTER` where none does."""
    producers = {name: node for node in graph.node for name in node.output}
    owners: dict[str, str] = {}
    for block in blocks:
        waiting = [block]
        while waiting:
            name = waiting.pop()
            if name in owners or name not in producers:
                continue
            owners[name] = block
            waiting.extend(producers[name].input)
    return {name: owners.get(name, AFTER) for name in producers}


def _rounded(graph: onnx.GraphProto) -> list[tuple[str, str]]:
    """Tensors before and after they are rounded to half precision and widened again."""
    halves = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast" and any(attribute.i in HALF for attribute in node.attribute)
    }
    return [
        (halves[node.input[0]], node.output[0])
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in halves
    ]


def _count(source: str, result: str, name: str) -> list[onnx.NodeProto]:
    """Nodes that compute a tensor's `FIGURES`, as tensors ``name/figure``.

    Args:
        source: The tensor before it is rounded.
        result: After.
        name: What the figures are called by.
    """
    from onnx import numpy_helper
    from onnx.helper import make_node

    def named(part: str) -> str:
        return f"{name}/{part}"

    def constant(part: str, value: float) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.array(value, np.float32))
        return make_node("Constant", [], [named(part)], value=tensor)

    nodes = [
        constant("zero", 0.0),
        constant("greatest", float(np.finfo(np.float32).max)),
        make_node("Abs", [source], [named("magnitude")]),
        make_node("LessOrEqual", [named("magnitude"), named("greatest")], [named("finite")]),  # false for NaN
        make_node("Where", [named("finite"), named("magnitude"), named("zero")], [named("kept")]),
        make_node("ReduceMax", [named("kept")], [named("amax")], keepdims=0),
        make_node("IsInf", [result], [named("infinite")]),
        make_node("And", [named("infinite"), named("finite")], [named("over")]),
        make_node("Greater", [named("kept"), named("zero")], [named("something")]),
        make_node("Equal", [result, named("zero")], [named("nothing")]),
        make_node("And", [named("something"), named("nothing")], [named("under")]),
        make_node("Size", [source], [named("values")]),
    ]
    for flags, count in (("over", "overflows"), ("under", "underflows")):
        nodes.append(make_node("Cast", [named(flags)], [named(f"{flags}_number")], to=7))
        nodes.append(make_node("ReduceSum", [named(f"{flags}_number")], [named(count)], keepdims=0))
    return nodes
