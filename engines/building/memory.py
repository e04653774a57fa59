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
    so both lie in memory. What is quantised counts as INT8 on both sides, and tensors whose sizes the file does not
    tell for nothing.

    Args:
        model: The network; free sizes are products of numbers and ``batch``, ``height``, ``width``.
        profile: The sizes.
    """
    graph = model.graph
    sizes = dict(zip(("batch", "height", "width"), profile.maximum, strict=True))
    ends = sum(_elements(each, sizes) * _width(each) for each in (*graph.input[:1], *graph.output[:1]))
    quantised = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    quantised |= {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    inner = {
        each.name: _elements(each, sizes) * (1 if each.name in quantised else _width(each)) for each in graph.value_info
    }
    pairs = (
        inner.get(node.input[0], 0) + inner.get(node.output[0], 0) for node in graph.node if node.op_type == "Conv"
    )
    return ends + max(pairs, default=0)


def _elements(tensor: onnx.ValueInfoProto, sizes: dict[str, int]) -> int:
    """Numbers of a tensor; 0 where they are not known."""
    total = 1
    for dim in tensor.type.tensor_type.shape.dim:
        factors = dim.dim_param.split("*") if dim.dim_param else [str(dim.dim_value)]
        known = [sizes.get(factor, int(factor) if factor.isdigit() else 0) for factor in factors]
        total *= math.prod(known)
    return total


def _width(tensor: onnx.ValueInfoProto) -> int:
    """Bytes of a number."""
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type).itemsize
