"""Operators written out as their bodies: the same results, fewer nodes, and names that an audit can follow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper

from agileir_export.engines import create_session
from agileir_export.engines.audit.requested_types import product_nodes
from agileir_export.engines.building.inlining import inline_operators

from ..export import networks
from ..export.written import half_file

KINDS = ("swinir-light", "agileir", "semanir", "semanir-unet")
"""Every operator, one and two resolutions."""


def run(model: onnx.ModelProto, batch: int, rows: int, columns: int) -> np.ndarray[Any, Any]:
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    images = networks.images(batch, channels, rows, columns)
    return create_session(model.SerializeToString()).run(None, {"input": images})[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_results_are_those_of_the_file(kind: str, folder: Path) -> None:
    model = onnx.load(networks.exported(folder, kind).path)
    data = model.SerializeToString()
    written_out = inline_operators(model)
    assert model.SerializeToString() == data, "the given model must stay as it is"
    assert not written_out.functions
    onnx.checker.check_model(written_out, full_check=True)
    for sizes in ((1, 8, 8), (2, 16, 24)):
        assert networks.psnr(run(written_out, *sizes), run(model, *sizes)) > 120


@pytest.mark.parametrize("kind", KINDS)
def test_what_calls_have_in_common_is_computed_once(kind: str, folder: Path) -> None:
    model = onnx.load(networks.exported(folder, kind).path)
    calls = Counter(node.op_type for node in model.graph.node if node.domain == "agileir")
    apart = Counter(node.op_type for node in onnx.inliner.inline_local_functions(model).graph.node)
    merged = Counter(node.op_type for node in inline_operators(model).graph.node)
    assert max(calls.values()) > 1
    resolutions = 2 if kind == "semanir-unet" else 1
    assert merged["Shape"] <= apart["Shape"] - sum(calls.values()) + len(calls) * resolutions
    assert merged["Range"] < apart["Range"] / 2 + 2 * resolutions
    assert merged["MatMul"] == apart["MatMul"]
    assert merged["Softmax"] == apart["Softmax"]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_products_keep_the_names_of_the_parser(precision: str, folder: Path, tmp_path: Path) -> None:
    artifact = networks.exported(folder, "semanir")
    if precision != "float32":
        artifact = half_file(artifact, tmp_path / "half.onnx", precision)
    model = onnx.load(artifact.path)
    assert any(" | " in name for name in product_nodes(model))
    assert product_nodes(inline_operators(model)) == product_nodes(model)


def two_calls(first: list[Any], second: list[Any]) -> onnx.ModelProto:
    """Two calls of a function that asks for the shape of its input, of two tensors said to have these sizes."""
    body = helper.make_function(
        "agileir",
        "Sizes",
        ["x"],
        ["y"],
        [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("ReduceProd", ["shape"], ["y"], keepdims=0)],
        [helper.make_opsetid("", 20)],
    )
    nodes = [
        helper.make_node("Relu", ["input"], ["a"]),
        helper.make_node("Sizes", ["a"], ["size_a"], domain="agileir", name="call_a"),
        helper.make_node("Concat", ["input", "input"], ["b"], axis=2),
        helper.make_node("Sizes", ["b"], ["size_b"], domain="agileir", name="call_b"),
        helper.make_node("Add", ["size_a", "size_b"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h"])],
        [helper.make_tensor_value_info("output", TensorProto.INT64, [])],
        value_info=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("a", first), ("b", second))
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("agileir", 1)]
    return helper.make_model(graph, functions=[body], opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize(
    ("second", "shapes"),
    [
        (["n", 3, "h"], 1),  # a lie, which shows that names are what decides
        (["n", 3, "2*h"], 2),
        (["n", 3, None], 2),
        ([None, None, None], 2),
    ],
)
def test_equal_names_are_equal_sizes(second: list[Any], shapes: int) -> None:
    written_out = inline_operators(two_calls(["n", 3, "h"], second))
    assert sum(node.op_type == "Shape" for node in written_out.graph.node) == shapes


@pytest.mark.parametrize("unknown", [None, -1])
def test_unknown_sizes_are_never_equal(unknown: int | None) -> None:
    model = two_calls(["n", 3, unknown], ["n", 3, unknown])
    written_out = inline_operators(model)
    assert sum(node.op_type == "Shape" for node in written_out.graph.node) == 2
    images = np.ones((2, 3, 5), np.float32)
    assert create_session(written_out.SerializeToString()).run(None, {"input": images})[0] == 90
    assert [node.name for node in written_out.graph.node if node.op_type == "Shape"] == [
        "node_of_shape | call_a (Sizes)",
        "node_of_shape | call_b (Sizes)",
    ]
