"""What an engine needs of a GPU's memory at least, read off its network before it is built."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..profiles import Profile

if TYPE_CHECKING:
    import onnx

__all__ = ["LARGE", "least_memory"]

LARGE = 16 * 2**30
"""Bytes that most graphics cards do not have."""


def least_memory(model: onnx.ModelProto, profile: Profile) -> int:
    """Bytes that an engine holds at once at the largest size of a profile: no less, whatever is fused.

    Input, output, and what the convolution reads and writes that has most of both: no builder joins two convolutions,
    so both lie in memory. Tensors whose sizes the file does not tell count for nothing.

    Args:
        model: The network; free sizes are products of numbers and ``batch``, ``height``, ``width``.
        profile: The sizes.
    """
    graph = model.graph
    sizes = dict(zip(("batch", "height", "width"), profile.maximum, strict=True))
    told = {each.name: _bytes(each, sizes) for each in (*graph.value_info, *graph.input, *graph.output)}
    ends = sum(told[each.name] for each in (*graph.input[:1], *graph.output[:1]))
    inner = {each.name for each in graph.value_info}
    pairs = (
        sum(told[name] for name in (node.input[0], node.output[0]) if name in inner)
        for node in graph.node
        if node.op_type == "Conv"
    )
    return ends + max(pairs, default=0)


def _bytes(tensor: onnx.ValueInfoProto, sizes: dict[str, int]) -> int:
    """Size of a tensor; 0 where it is not known."""
    import onnx

    total = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type).itemsize
    for dim in tensor.type.tensor_type.shape.dim:
        factors = dim.dim_param.split("*") if dim.dim_param else [str(dim.dim_value)]
        known = [sizes.get(factor, int(factor) if factor.isdigit() else 0) for factor in factors]
        total *= math.prod(known)
    return total
