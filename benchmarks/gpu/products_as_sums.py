"""Convolutions and products of matrices written as multiplications and sums, for a TensorRT without kernels for them.

A TensorRT of whose parts for the GPU at hand some are missing can still run what needs none of its own products. The
network computes the same: factors are multiplied, and terms added, in float32. Slow and hungry for memory by design;
for small networks and small pictures only::

    python benchmarks/gpu/products_as_sums.py model.onnx sums.onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
PRODUCTS = ("Conv", "MatMul", "Gemm", "ConvTranspose", "Einsum")


class Writer:
    """The nodes and weights that take the place of one node.

    Args:
        node: The node that goes.
        kind: ONNX type of its tensors.
    """

    def __init__(self, node: onnx.NodeProto, kind: int) -> None:
        self.node, self.kind = node, kind
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: Any) -> str:
        """Name of a new constant."""
        name = f"{self.node.name}.sums.{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Name of the output of a new node."""
        name = f"{self.node.name}.{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name, **attributes))
        return output or name

    def wide(self, tensor: str) -> str:
        """A tensor in float32."""
        return self.add("Cast", tensor, to=TensorProto.FLOAT) if self.kind in HALF else tensor

    def summed(self, left: str, right: str, axis: int, bias: str = "") -> None:
        """Writes the node's output: the products of two tensors summed along an axis, and a bias."""
        total = self.add("Mul", left, right)
        output = self.node.output[0]
        last = "" if bias or self.kind in HALF else output
        total = self.add("ReduceSum", total, self.constant(np.array([axis])), output=last, keepdims=0)
        if bias:
            total = self.add("Add", total, self.wide(bias), output="" if self.kind in HALF else output)
        if self.kind in HALF:
            self.add("Cast", total, output=output, to=self.kind)


def convolution(write: Writer, weights: Any) -> None:
    """A convolution of stride 1 that keeps the size, with weights ``[O, C, kh, kw]``: nothing else is in our networks.

    Raises:
        ValueError: It is another.
    """
    node = write.node
    given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    outputs, channels, rows, columns = weights.shape
    pads = [rows // 2, columns // 2] * 2
    usual = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "auto_pad": b"NOTSET"} | given
    wanted = {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": pads, "auto_pad": b"NOTSET"}
    if any(usual[name] != value for name, value in wanted.items()):
        raise ValueError(f"{node.name} is no convolution of stride 1 that keeps the size: {given}")
    padded = node.input[0]
    if rows * columns > 1:
        padded = write.add("Pad", padded, write.constant(np.array([0, 0, *pads[:2]] * 2)), mode="constant")
    largest, taps = np.iinfo(np.int64).max, []
    for row in range(rows):
        for column in range(columns):
            ends = [end - size + 1 or largest for end, size in ((row, rows), (column, columns))]
            places = (write.constant(np.array(place)) for place in ([row, column], ends, [2, 3]))
            taps.append(write.add("Slice", padded, *places))
    stacked = write.add("Concat", *taps, axis=1) if len(taps) > 1 else padded
    spread = write.add("Unsqueeze", write.wide(stacked), write.constant(np.array([1])))
    flat = weights.astype(np.float32).transpose(0, 2, 3, 1).reshape(1, outputs, rows * columns * channels, 1, 1)
    bias = ""
    if len(node.input) > 2 and node.input[2]:
        bias = write.add("Reshape", node.input[2], write.constant(np.array([1, -1, 1, 1])))
    write.summed(spread, write.constant(flat), 2, bias)


def product(write: Writer) -> None:
    """A product of (stacks of) matrices."""
    left, right = (write.wide(name) for name in write.node.input)
    left = write.add("Unsqueeze", left, write.constant(np.array([-1])))
    right = write.add("Unsqueeze", right, write.constant(np.array([-3])))
    write.summed(left, right, -2)


def as_sums(source: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """A model that computes the same without ``Conv`` and ``MatMul`` in its graph; its functions stay as they are.

    Args:
        source: An exported model in float32 or half precision; it is not changed.
        kept: Names of nodes that stay as they are, too: those that plugins will stand for.

    Raises:
        ValueError: A product is of a form that is not known here.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    types = {name: tensor.data_type for name, tensor in weights.items()}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if (
            node.name in kept
            or node.domain
            or node.op_type not in ("Conv", "MatMul", "Gemm", "ConvTranspose", "Einsum")
        ):
            nodes.append(node)
            continue
        write = Writer(node, types[node.input[0]])
        if node.op_type == "Conv" and node.input[1] in weights:
            convolution(write, numpy_helper.to_array(weights[node.input[1]]))
        elif node.op_type == "MatMul":
            product(write)
        else:
            raise ValueError(f"{node.name} is a {node.op_type} that is not known here")
        nodes += write.nodes
        graph.initializer.extend(write.weights)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return model


def main(given: Sequence[str] | None = None) -> int:
    """Rewrites a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(given)
    onnx.save(as_sums(onnx.load(options.source)), options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
