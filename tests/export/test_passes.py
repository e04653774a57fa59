"""Each graph pass on a graph of a few nodes: its effect, its two promises, and that no number changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from agileir_export.engines import create_session
from agileir_export.errors import InternalError
from agileir_export.export.passes import GraphPass, name_dimensions, name_tensors, run_passes

BLOCKS = {"sum_1": "layers.0", "sum_2": "layers.1"}


def constant(name: str, *shape: int, seed: int = 0) -> gs.Constant:
    return gs.Constant(name, np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def two_layers() -> gs.Graph:
    """Two linear layers with equal weights under different names; free batch, height and width, channels last."""
    free: list[Any] = ["s0", "8*s1", "8*s2", 4]
    images = gs.Variable("input", np.float32, ["s0", 4, "8*s1", "8*s2"])
    moved, product_1, sum_1, product_2, sum_2 = (
        gs.Variable(name, np.float32, free) for name in ("moved", "product_1", "sum_1", "product_2", "sum_2")
    )
    output = gs.Variable("output", np.float32, ["s0", 4, "8*s1", "8*s2"])
    weight, bias = constant("val_1", 4, 4), constant("model.layers.0.fc.bias", 4, seed=1)
    weight_again, bias_2 = constant("val_2", 4, 4), constant("model.layers.1.fc.bias", 4, seed=2)
    nodes = [
        gs.Node("Transpose", "t1", {"perm": [0, 2, 3, 1]}, [images], [moved]),
        gs.Node("MatMul", "m1", {}, [moved, weight], [product_1]),
        gs.Node("Add", "a1", {}, [product_1, bias], [sum_1]),
        gs.Node("MatMul", "m2", {}, [sum_1, weight_again], [product_2]),
        gs.Node("Add", "a2", {}, [product_2, bias_2], [sum_2]),
        gs.Node("Transpose", "t2", {"perm": [0, 3, 1, 2]}, [sum_2], [output]),
    ]
    return gs.Graph(nodes, [images], [output], opset=20)


PASSES = {
    "name tensors": name_tensors(BLOCKS),
    "name dimensions": name_dimensions(1),
}


def run(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    images = np.random.default_rng(3).standard_normal((2, 4, 8, 16)).astype(np.float32)
    return create_session(model.SerializeToString()).run(None, {"input": images})[0]


def exported(graph: gs.Graph) -> onnx.ModelProto:
    model: onnx.ModelProto = gs.export_onnx(graph)
    model.ir_version = 9
    return model


# ---- all passes ----


@pytest.mark.parametrize("names", [*([name] for name in PASSES), list(PASSES)], ids=str)
def test_no_number_changes(names: list[str]) -> None:
    before = exported(two_layers())
    data = before.SerializeToString()
    after = run_passes(before, [PASSES[name] for name in names])
    assert before.SerializeToString() == data, "the given model must stay as it is"
    onnx.checker.check_model(after, full_check=True)
    assert after.ir_version == before.ir_version
    np.testing.assert_array_equal(run(after), run(before))


@pytest.mark.parametrize("step", PASSES.values(), ids=list(PASSES))
def test_a_pass_that_does_nothing_breaks_its_promise(step: GraphPass) -> None:
    """What a pass ensures is not true before it."""
    idle = dataclasses.replace(step, transform=lambda graph: None)
    with pytest.raises(InternalError, match=f"{step.name} broke its promise"):
        idle.apply(two_layers())


def test_the_three_checks_run_in_order() -> None:
    seen: list[str] = []

    def check(name: str, answer: str | None) -> Any:
        return lambda graph: seen.append(name) or answer

    def transform(graph: gs.Graph) -> None:
        seen.append("transform")

    graph = gs.Graph()
    GraphPass("p", check("requires", None), transform, check("ensures", None)).apply(graph)
    assert seen == ["requires", "transform", "ensures"]
    seen.clear()
    with pytest.raises(InternalError, match="pass p cannot start: too small"):
        GraphPass("p", check("requires", "too small"), transform, check("ensures", None)).apply(graph)
    assert seen == ["requires"]
    with pytest.raises(InternalError, match="pass p broke its promise: too large"):
        GraphPass("p", check("requires", None), transform, check("ensures", "too large")).apply(graph)


# ---- name tensors ----


def test_tensors_get_the_names_of_the_model() -> None:
    graph = two_layers()
    name_tensors(BLOCKS).apply(graph)
    names = {node.name: [tensor.name for tensor in (*node.inputs, *node.outputs)] for node in graph.nodes}
    assert names["m1"] == ["moved", "layers.0.fc.weight^T", "product_1"]
    assert names["a1"] == ["product_1", "layers.0.fc.bias", "layers.0"]
    assert names["m2"] == ["layers.0", "layers.1.fc.weight^T", "product_2"]
    assert names["a2"][1:] == ["layers.1.fc.bias", "layers.1"]
    assert (graph.inputs[0].name, graph.outputs[0].name) == ("input", "output")


def test_a_shared_weight_is_named_once() -> None:
    graph = two_layers()
    graph.nodes[3].inputs[1] = graph.nodes[1].inputs[1]
    name_tensors(BLOCKS).apply(graph)
    products = [node.inputs[1] for node in graph.nodes if node.op == "MatMul"]
    assert products[0] is products[1]
    assert products[0].name.endswith("fc.weight^T")


def test_a_product_without_its_own_bias_keeps_its_name() -> None:
    """Two readers of the product, or a sum with something that is no bias: the name would be a guess."""
    graph = two_layers()
    graph.nodes[2].inputs[1].name = "model.layers.0.gain"
    extra = gs.Variable("extra", np.float32, ["s0", "8*s1", "8*s2", 4])
    graph.nodes.append(gs.Node("Relu", "r", {}, [graph.nodes[3].outputs[0]], [extra]))
    name_tensors(BLOCKS).apply(graph)
    assert [node.inputs[1].name for node in graph.nodes if node.op == "MatMul"] == ["val_1", "val_2"]


def test_a_block_must_have_its_tensor() -> None:
    with pytest.raises(InternalError, match=r"name tensors cannot start: no tensor gone for block layers\.9"):
        name_tensors({"gone": "layers.9"}).apply(two_layers())


def test_the_name_of_a_block_must_be_free() -> None:
    with pytest.raises(InternalError, match="cannot start: the name product_1 is taken"):
        name_tensors({"sum_1": "product_1"}).apply(two_layers())


def test_a_block_that_is_the_result_keeps_the_results_name() -> None:
    graph = two_layers()
    name_tensors({"output": "layers.0"}).apply(graph)
    assert graph.outputs[0].name == "output"


def test_two_tensors_of_one_name_break_the_promise() -> None:
    graph = two_layers()
    graph.nodes[1].outputs[0].name = "moved"
    with pytest.raises(InternalError, match="two tensors are named moved"):
        name_tensors(BLOCKS).apply(graph)


def test_omitted_optional_inputs_have_no_name() -> None:
    graph = two_layers()
    result = graph.nodes[4].outputs[0]
    clipped = gs.Variable("clipped", np.float32, result.shape)
    clip = gs.Node("Clip", "c", {}, [result, gs.Variable.empty(), gs.Variable.empty()], [clipped])
    graph.nodes[5].inputs[0] = clipped
    graph.nodes.append(clip)
    name_tensors(BLOCKS).apply(graph)
    assert result.name == "layers.1"


# ---- name dimensions ----


@pytest.mark.parametrize(("scale", "factor"), [(1, ""), (2, "2*"), (4, "4*")])
def test_dimensions_get_names(scale: int, factor: str) -> None:
    graph = two_layers()
    inside = [node.outputs[0] for node in graph.nodes[:-1]]
    inside[1].shape = ["s0", "4*s1", "16*s2", 4]
    inside[2].shape = ["s0", "s7", f"{4 * scale}*s8", 4]
    inside[3].shape = None
    graph.outputs[0].shape = ["s0", 4, f"{8 * scale}*s9", f"{8 * scale}*s8"]  # traced in other symbols than the input
    name_dimensions(scale).apply(graph)
    assert graph.inputs[0].shape == ["batch", 4, "height", "width"]
    assert graph.outputs[0].shape == ["batch", 4, f"{factor}height", f"{factor}width"]
    half = f"{scale // 2}*width".removeprefix("1*") if scale > 1 else "width/2"
    assert [tensor.shape for tensor in inside] == [
        ["batch", "height", "width", 4],
        ["batch", "height/2", "2*width", 4],
        ["batch", "s7", half, 4],
        None,
        ["batch", "height", "width", 4],
    ]


def test_an_output_of_another_scale_breaks_the_promise() -> None:
    with pytest.raises(InternalError, match=r"broke its promise: the output's sizes are .*'height', 'width'"):
        name_dimensions(2).apply(two_layers())


@pytest.mark.parametrize(("axis", "name"), [(0, "batch"), (2, "height"), (3, "width")])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_frozen_dimension_stops_the_pass(side: str, axis: int, name: str) -> None:
    graph = two_layers()
    tensor = getattr(graph, side)[0]
    tensor.shape[axis] = 8
    with pytest.raises(InternalError, match=f"cannot start: {tensor.name} .* is frozen in {name}"):
        name_dimensions(2).apply(graph)


def test_two_inputs_or_another_rank_stop_the_pass() -> None:
    graph = two_layers()
    graph.inputs.append(gs.Variable("second", np.float32, [1]))
    with pytest.raises(InternalError, match="2 inputs and 1 outputs"):
        name_dimensions(2).apply(graph)
    graph = two_layers()
    graph.outputs[0].shape = ["s0", 4, "8*s1"]
    with pytest.raises(InternalError, match=r"output has shape .* four dimensions expected"):
        name_dimensions(2).apply(graph)


def test_freezing_a_dimension_breaks_the_promise() -> None:
    def freeze(graph: gs.Graph) -> int:
        graph.outputs[0].shape = [1, 4, "height", "width"]
        return 1

    broken = dataclasses.replace(name_dimensions(1), transform=freeze)
    with pytest.raises(InternalError, match=r"broke its promise: output .* is frozen in batch"):
        broken.apply(two_layers())
