"""The forms in which an exported file holds what a block of a transformer computes around one of our operators.

Everything is found in standard nodes, from the operator's node on. A form is found only where nothing else reads what
is computed inside it, and nothing of it is a result of the graph.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .launch import ITEM_BYTES, UNKNOWN, NoKernel

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    Linear = tuple[Tensor, Tensor | None]

__all__ = ["BlockGraph", "Found"]

EPSILON = 1e-5
"""Default of ONNX's LayerNormalization."""

RANK = 4
"""Dimensions of features ``[B, H, W, C]``."""

NORM_INPUTS = 3
"""Features, gain and shift."""


class Found(NamedTuple):
    """Nodes of a form.

    Attributes:
        input: The tensor that they read; of a residual what is added.
        output: The tensor that they make.
        places: Where they stand in the graph.
        norm: Gain and shift of the layer norm; empty without one.
        linears: Weight ``[out, in]`` and bias, which may be missing, of the linear layers in order.
        epsilon: Of the layer norm.
        rectified: Whether a ReLU comes first.
    """

    input: str
    output: str
    places: tuple[int, ...]
    norm: tuple[Tensor, ...] = ()
    linears: tuple[Linear, ...] = ()
    epsilon: float = EPSILON
    rectified: bool = False


class BlockGraph:
    """A graph and what is looked up in it.

    Args:
        model: The model.
        folder: Where weights in files of their own lie.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        graph = model.graph
        self.folder, self.nodes = folder, list(graph.node)
        self.makers: dict[str, int] = {}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            self.makers.update((name, place) for name in node.output)
            for name in node.input:
                self.readers[name].append(place)
        self.results = {value.name for value in graph.output}
        given = {value.name for value in graph.input}  # constants among them are defaults
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
        values = (*graph.input, *graph.value_info, *graph.output)
        self.values = {value.name: value.type.tensor_type for value in values}

    # ---- tensors ----

    def features(self, *names: str) -> tuple[tuple[int, ...], int]:
        """Shape and ONNX type that features have in common.

        Raises:
            NoKernel: They have none, the file does not tell, or they are no ``[B, H, W, C]``.
        """
        known = self.values.get(names[0])
        same = known is not None and all(self.values.get(name) == known for name in names)
        if known is None or not same or len(known.shape.dim) != RANK or not known.elem_type:
            raise NoKernel(f"half blocks: {', '.join(names)} are no images of one size")
        shape = tuple(size.dim_value if size.HasField("dim_value") else UNKNOWN for size in known.shape.dim)
        return shape, known.elem_type

    def constant(self, name: str, rank: int) -> Tensor | None:
        """A constant of that many dimensions; None where it is none."""
        import onnx
        import torch

        tensor = self.constants.get(name)
        if tensor is None or len(tensor.dims) != rank:
            return None
        values = onnx.numpy_helper.to_array(tensor, str(self.folder))
        if (dtype := str(values.dtype)) not in ITEM_BYTES:
            return None
        return torch.from_numpy(values.astype(np.float32)).to(getattr(torch, dtype))

    # ---- nodes ----

    def _is(self, place: int, kind: str) -> bool:
        node = self.nodes[place]
        return node.op_type == kind and node.domain in ("", "ai.onnx") and not any(node.output[1:])

    def _making(self, name: str, kind: str) -> int | None:
        """Place of the node of a kind that makes a tensor."""
        place = self.makers.get(name)
        return place if place is not None and self._is(place, kind) else None

    def _reading(self, name: str, kind: str, others: int = 0) -> int | None:
        """Place of the one node of a kind that reads a tensor, beside so many `others`; the tensor is no result."""
        places = self.readers[name]
        found = [place for place in places if self._is(place, kind)]
        return found[0] if len(found) == 1 and len(places) == 1 + others and name not in self.results else None

    # ---- forms ----

    def norm(self, place: int | None) -> Found | None:
        """The layer norm over channels, with gain and shift, that stands there."""
        if place is None:
            return None
        node = self.nodes[place]
        told = {entry.name: entry for entry in node.attribute}
        if len(node.input) != NORM_INPUTS or ("axis" in told and told["axis"].i not in (-1, RANK - 1)):
            return None
        gain, shift = (self.constant(name, 1) for name in node.input[1:])
        if gain is None or shift is None or gain.shape != shift.shape:
            return None
        epsilon = told["epsilon"].f if "epsilon" in told else EPSILON
        return Found(node.input[0], node.output[0], (place,), (gain, shift), epsilon=epsilon)

    def linear(self, name: str) -> Found | None:
        """``x W + b`` or ``x W`` of a tensor that nothing else reads: weight ``[out, in]`` and bias."""
        product = self._reading(name, "MatMul")
        weight = None if product is None else self.constant(self.nodes[product].input[1], 2)
        if product is None or weight is None:
            return None
        output = self.nodes[product].output[0]
        add = self._reading(output, "Add")
        for constant in () if add is None else self.nodes[add].input:
            bias = self.constant(constant, 1)
            if add is not None and bias is not None and len(bias) == weight.shape[1]:
                return Found(name, self.nodes[add].output[0], (product, add), linears=((weight.T, bias),))
        return Found(name, output, (product,), linears=((weight.T, None),))

    def residual(self, name: str) -> Found | None:
        """``x + a`` of a tensor a that nothing else reads: `input` is x."""
        place = self._reading(name, "Add")
        if place is None:
            return None
        one, other = self.nodes[place].input
        added = other if one == name else one
        return None if added in self.constants else Found(added, self.nodes[place].output[0], (place,))

    def norm_projection(self, name: str) -> Found | None:
        """``LN(x) W + b``, or ``LN(x)`` alone, whose result is this tensor, which one node reads."""
        if len(self.readers[name]) != 1 or name in self.results:
            return None
        if (norm := self.norm(self._making(name, "LayerNormalization"))) is not None:
            return norm
        last = self.makers.get(name)
        inner = [] if last is None else self.nodes[last].input
        products = [place for each in (name, *inner) if (place := self._making(each, "MatMul")) is not None]
        linear = self.linear(self.nodes[products[0]].input[0]) if products else None
        norm = self.norm(self._making(linear.input, "LayerNormalization")) if linear else None
        if linear is None or norm is None or linear.output != name:
            return None
        return norm._replace(output=name, places=(*norm.places, *linear.places), linears=linear.linears)

    def projection(self, name: str) -> Found | None:
        """``x + a W + b``, or ``x + relu(a) W + b``, of a tensor a that nothing else reads: `input` is x."""
        place = self._reading(name, "Relu")
        before = () if place is None else (place,)
        linear = self.linear(name if place is None else self.nodes[place].output[0])
        end = self.residual(linear.output) if linear else None
        if linear is None or end is None:
            return None
        places = (*before, *linear.places, *end.places)
        return end._replace(places=places, linears=linear.linears, rectified=place is not None)

    def mlp(self, name: str) -> Found | None:
        """``y + gelu(LN(y) W1 + b1) W2 + b2`` of a tensor that nothing else reads."""
        norm = self.norm(self._reading(name, "LayerNormalization", others=1))
        first = self.linear(norm.output) if norm else None
        place = self._reading(first.output, "Gelu") if first else None
        if norm is None or first is None or place is None or norm.input != name:
            return None
        activation = self.nodes[place]
        if any(entry.name == "approximate" and entry.s != b"none" for entry in activation.attribute):
            return None
        second = self.linear(activation.output[0])
        end = self.residual(second.output) if second else None
        if second is None or end is None or end.input != name:
            return None
        places = (*norm.places, *first.places, place, *second.places, *end.places)
        return norm._replace(output=end.output, places=places, linears=(*first.linears, *second.linears))
