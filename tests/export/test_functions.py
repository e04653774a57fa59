"""Function bodies attached to a model and inlined into it, on models of a few nodes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from agileir_export.engines import create_session
from agileir_export.errors import Unsupported
from agileir_export.export.functions import attach_functions, default_opset, inline_functions
from agileir_export.plugins.group_shifted_window_attention.operator import group_shifted_window_attention

from . import networks

WINDOW, WIDTH = 4, 12
IMAGE = np.random.default_rng(0).standard_normal((2, 8, 4, WIDTH)).astype(np.float32)


def weights(groups: int, key: int, kernel: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Constant inputs of GroupShiftedWindowAttention by name."""
    rng = np.random.default_rng(groups * 10 + key)
    value = WIDTH // groups
    shapes = {
        "qkv_weight": (groups, 2 * key + value, value),
        "qkv_bias": (groups, 2 * key + value),
        "q_dw_weight": (groups, key, *kernel),
        "q_dw_bias": (groups, key),
        "bias_table": ((2 * WINDOW - 1) ** 2, groups),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}


def chain(*bodies: tuple[int, int, tuple[int, int]], opset: int = 20) -> onnx.ModelProto:
    """Group attentions one after the other, each of (groups, key width, filter), every second one shifted."""
    nodes, constants = [], []
    for number, body in enumerate(bodies):
        for name, value in weights(*body).items():
            constants.append(numpy_helper.from_array(value, f"{name}_{number}"))
        edges = [f"t{number}", *(f"{name}_{number}" for name in weights(*body))], [f"t{number + 1}"]
        facts = {"name": f"node_{number}", "domain": "agileir", "plugin_namespace": "agileir"}
        facts |= {"window_size": WINDOW, "shift_size": number % 2}
        nodes.append(helper.make_node("GroupShiftedWindowAttention", *edges, **facts))
    dims = ["b", "h", "w", WIDTH]
    image = helper.make_tensor_value_info("t0", TensorProto.FLOAT, dims)
    output = helper.make_tensor_value_info(f"t{len(bodies)}", TensorProto.FLOAT, dims)
    graph = helper.make_graph(nodes, "chain", [image], [output], constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("agileir", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def expected(*bodies: tuple[int, int, tuple[int, int]]) -> np.ndarray[Any, Any]:
    image = torch.from_numpy(IMAGE)
    for number, body in enumerate(bodies):
        tensors = [torch.from_numpy(value) for value in weights(*body).values()]
        image = group_shifted_window_attention(image, *tensors, WINDOW, number % 2)
    return image.numpy()


def run(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    onnx.checker.check_model(model, full_check=True)
    return create_session(model.SerializeToString()).run(None, {"t0": IMAGE})[0]


SAME = [(3, 4, (3, 3)), (3, 4, (3, 3))]
MIXED = {
    "groups": [(3, 4, (3, 3)), (2, 4, (3, 3))],
    "key width": [(3, 4, (3, 3)), (3, 5, (3, 3))],
    "filter": [(3, 4, (3, 3)), (3, 4, (5, 3))],
    "the third differs": [(3, 4, (3, 3)), (3, 4, (3, 3)), (2, 4, (3, 3))],
}


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_one_function_serves_all_nodes(opset: int) -> None:
    model = chain(*SAME, opset=opset)
    attach_functions(model)
    assert [(f.domain, f.name) for f in model.functions] == [("agileir", "GroupShiftedWindowAttention")]
    assert default_opset(model) == opset == model.functions[0].opset_import[0].version
    np.testing.assert_allclose(run(model), expected(*SAME), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bodies", MIXED.values(), ids=list(MIXED))
def test_one_name_cannot_have_two_functions(bodies: Any) -> None:
    model = chain(*bodies)
    with pytest.raises(Unsupported, match="--decomposed") as caught:
        attach_functions(model)
    assert f"node_{len(bodies) - 1}" in caught.value.what
    assert not model.functions


@pytest.mark.parametrize("bodies", [SAME, *MIXED.values()], ids=["same", *MIXED])
def test_inlined_models_hold_plain_onnx(bodies: Any) -> None:
    model = chain(*bodies)
    before = model.SerializeToString()
    plain = inline_functions(model)
    assert model.SerializeToString() == before, "the given model must stay as it is"
    assert not plain.functions
    assert {node.domain for node in plain.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in plain.opset_import] == [("", 20)]
    assert "CastLike" not in {node.op_type for node in plain.graph.node}
    np.testing.assert_allclose(run(plain), expected(*bodies), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["agileir", "semanir", "swinir-light"])
def test_a_runtime_folds_as_much_of_a_decomposed_file(kind: str, folder: Path, tmp_path: Path) -> None:
    """What is left of a file after ONNX Runtime's optimisers, beside what is left with functions."""
    left = {}
    for decomposed in (False, True):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(tmp_path / f"{decomposed}.onnx"), 3
        data = networks.exported(folder, kind, decomposed=decomposed).data
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(tmp_path / f"{decomposed}.onnx").graph
        left[decomposed] = Counter(node.op_type for node in graph.node)
    assert left[True]["Conv"] == left[False]["Conv"]
    more = {op: count for op, count in (left[True] - left[False]).items() if op != "Shape"}
    assert not more, "operators that are left only there"


def test_a_model_without_operators_stays() -> None:
    model = chain()
    model.graph.node.append(helper.make_node("Relu", ["t0"], ["y"]))
    model.graph.output[0].name = "y"
    attach_functions(model)
    assert not model.functions
    assert [node.op_type for node in inline_functions(model).graph.node] == ["Relu"]


def test_the_default_domain_has_two_names() -> None:
    model = chain(opset=21)
    model.opset_import[0].domain = "ai.onnx"
    model.opset_import.insert(0, helper.make_opsetid("agileir", 1))
    assert default_opset(model) == 21
