"""A file as OpenVINO reads it: plain ONNX, with detours around what it gets wrong and what it is slow at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["plain_graph"]

LOWEST = "lowest_float32"
QUANTISED = ("QuantizeLinear", "DequantizeLinear")

Shapes = Mapping[str, tuple[int | str, ...]]
"""Sizes of tensors, as `sizes` tells them."""


def plain_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes out every function, with the bodies that are in the file, and merges equal nodes.

    Where a Concat is quantised, OpenVINO (2026.4) moves the quantisation in front of it, and may then refuse the Concat
    for its inputs of two types. A Max with the lowest float32, which changes no value, keeps it where it is.

    Any tensor of four dimensions it takes for pictures, tokens ``[B, H, W, C]`` too, and reorders them in front of
    every layer norm: a fifth of AgileIR's time. Layer norms of tokens, and the sums that lead to them, are computed in
    ``[1, B * H * W, C]``.

    A product with weights that is split afterwards is several products with parts of the weights: a Split copies number
    by number, which took a tenth of AgileIR's time.

    The best along the last axis it finds in more than twice the time that it needs along the one before, and of equal
    values not the first ones, as ONNX says: TopK gets its input transposed, and its results are transposed back.

    Args:
        model: The exported model; not changed.
    """
    from onnx import inliner, shape_inference

    from ...export.merging import merge_equal_nodes, sizes

    plain = merge_equal_nodes(inliner.inline_local_functions(model))
    typed = shape_inference.infer_shapes(plain).graph
    shapes = {value.name: sizes(value) for value in (*typed.value_info, *typed.input)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in typed.initializer}
    _keep_joined(plain.graph)
    _products_apart(plain.graph, shapes)
    _tokens_in_rows(plain.graph, shapes)
    _best_of_columns(plain.graph, shapes)
    return plain


def _keep_joined(graph: onnx.GraphProto) -> None:
    """Puts a Max between a Concat and its quantisation."""
    import numpy as np
    from onnx import helper, numpy_helper

    nodes = list(graph.node)
    joined = {node.output[0] for node in nodes if node.op_type == "Concat"}
    del graph.node[:]
    for node in nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] in joined:
            kept = f"{node.output[0]}/joined"
            graph.node.append(helper.make_node("Max", [node.input[0], LOWEST], [kept], name=kept))
            node.input[0] = kept
        graph.node.append(node)
    graph.initializer.append(numpy_helper.from_array(np.array(np.finfo(np.float32).min, np.float32), LOWEST))


def _products_apart(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Splits the weights and the bias of a product whose sum is split along its last axis, instead of the sum."""
    readers = Counter(name for node in graph.node for name in node.input) + Counter(each.name for each in graph.output)
    producer = {output: node for node in graph.node for output in node.output}
    fixed = _constants(graph)
    gone: set[str] = set()
    instead: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        total = producer.get(node.input[0]) if node.op_type == "Split" else None
        product = producer.get(total.input[0]) if total is not None and total.op_type == "Add" else None
        if total is None or product is None or product.op_type != "MatMul":
            continue
        parts, result = (product.input[1], total.input[1]), total.output[0]
        last = len(shapes.get(result, ())) - 1
        if (
            fixed.issuperset(parts)
            and [len(shapes.get(part, ())) for part in parts] == [2, 1]
            and readers[result] == readers[product.output[0]] == 1
            and last > 0
            and _attribute(node, "axis", 0) in (-1, last)
        ):
            gone |= {result, product.output[0]}
            instead[node.output[0]] = _apart(node, product.input[0], *parts)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.output[0] not in gone:
            graph.node.extend(instead.get(node.output[0], [node]))


def _apart(split: onnx.NodeProto, tokens: str, weight: str, bias: str) -> list[onnx.NodeProto]:
    """What gives the outputs of a Split of ``tokens @ weight + bias``, without it."""
    from onnx import helper

    nodes = []
    for kind, name in (("weight", weight), ("bias", bias)):
        nodes.append(copy := deepcopy(split))
        copy.name, copy.input[0] = f"{split.output[0]}/{kind}s", name
        kept = [attribute for attribute in split.attribute if attribute.name != "axis"]
        del copy.attribute[:], copy.output[:]
        copy.attribute.extend([*kept, helper.make_attribute("axis", -1)])
        copy.output.extend(f"{output}/{kind}" for output in split.output)
    for output in split.output:
        raw = f"{output}/product"
        nodes.append(helper.make_node("MatMul", [tokens, f"{output}/weight"], [raw], name=raw))
        nodes.append(helper.make_node("Add", [raw, f"{output}/bias"], [output], name=f"{output}/sum"))
    return nodes


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Tensors that are the same for every picture; of quantised weights the bytes, not their values."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        computed = node.op_type == "Constant" or (len(node.input) > 0 and found.issuperset(filter(None, node.input)))
        if computed and node.op_type not in QUANTISED:
            found.update(node.output)
    return found


def _tokens_in_rows(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Puts a Reshape before and behind layer norms of four dimensions, and behind the Adds that make their inputs."""
    import numpy as np
    from onnx import helper, numpy_helper

    producer = {output: node for node in graph.node for output in node.output}
    wanted = [node.input[0] for node in graph.node if _norms_tokens(node)]
    tokens: set[str] = set()
    while wanted:
        name = wanted.pop()
        shape = shapes.get(name, ())
        if name in tokens or len(shape) != 4 or not isinstance(shape[3], int) or not all(shape):
            continue
        tokens.add(name)
        node = producer.get(name)
        if node is not None and node.op_type == "Add" and all(shapes.get(part) == shape for part in node.input):
            wanted.extend(node.input)

    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        name = node.output[0]
        if _norms_tokens(node) and node.input[0] in tokens:
            parts, channels = 1, shapes[node.input[0]][3]
        elif node.op_type == "Add" and name in tokens and all(part in tokens for part in node.input):
            parts, channels = 2, shapes[name][3]
        else:
            graph.node.append(node)
            continue
        rows, size = f"{name}/rows_shape", f"{name}/shape"
        graph.initializer.append(numpy_helper.from_array(np.array([1, -1, channels], np.int64), rows))
        graph.node.append(helper.make_node("Shape", [node.input[0]], [size], name=size))
        for part in range(parts):
            flat = f"{name}/rows_{part}"
            graph.node.append(helper.make_node("Reshape", [node.input[part], rows], [flat], name=flat))
            node.input[part] = flat
        node.output[0] = f"{name}/rows"
        graph.node.append(node)
        graph.node.append(helper.make_node("Reshape", [node.output[0], size], [name], name=f"{name}/reshape"))


def _best_of_columns(graph: onnx.GraphProto, shapes: Shapes) -> None:
    """Lets a TopK over the last axis work along the axis before, where the number of axes is known."""
    from onnx import helper

    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        rank = len(shapes.get(node.input[0], ())) if node.op_type == "TopK" else 0
        if rank < 2 or _attribute(node, "axis", -1) not in (-1, rank - 1):
            graph.node.append(node)
            continue
        order = [*range(rank - 2), rank - 1, rank - 2]
        results = list(node.output)
        turned = f"{results[0]}/turned"
        graph.node.append(helper.make_node("Transpose", [node.input[0]], [turned], name=turned, perm=order))
        node.input[0] = turned
        kept = [attribute for attribute in node.attribute if attribute.name != "axis"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("axis", rank - 2)])
        del node.output[:]
        node.output.extend(f"{name}/columns" for name in results)
        graph.node.append(node)
        for name in results:
            graph.node.append(helper.make_node("Transpose", [f"{name}/columns"], [name], name=name, perm=order))


def _norms_tokens(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer norm over the last axis of four, and gives nothing but its result."""
    norm = node.op_type == "LayerNormalization" and sum(map(bool, node.output)) == 1
    return norm and _attribute(node, "axis", -1) in (-1, 3)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An attribute that is a number."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)
