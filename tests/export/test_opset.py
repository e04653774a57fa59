"""Declaring a newer opset, and which types operators take in which opset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from agileir_export.export.element_types import body_refusal, permits, schema_of
from agileir_export.export.opset import raise_opset
from agileir_export.plugins import OPERATORS

from . import networks

STATICS = {
    "GroupShiftedWindowAttention": {"groups": 2, "key_dim": 4, "value_dim": 6, "kernel_height": 3, "kernel_width": 3},
    "KeySemanticDictionary": {"region_holds_all": 0},
}


def small(body: str, opset: int) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{ {body} }}'
    return onnx.parser.parse_model(text)


def versions(model: onnx.ModelProto) -> set[int]:
    imports = [model.opset_import, *(function.opset_import for function in model.functions)]
    return {entry.version for entries in imports for entry in entries if not entry.domain}


# ---- opset ----


def test_the_network_is_the_same_to_the_bit(folder: Path) -> None:
    model = onnx.load(networks.exported(folder, "swinir-light", opset=18).path)
    before = model.SerializeToString()
    raised = raise_opset(model, 23)
    assert model.SerializeToString() == before
    assert (versions(model), versions(raised)) == ({18}, {23})
    onnx.checker.check_model(raised, full_check=True)
    images = networks.images(1, 3, 8, 12)
    levels = [onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL]
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24):
        del levels[1]  # whose optimisations depend on the opset there, and round otherwise
    for level in levels:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        first, second = (
            onnxruntime.InferenceSession(each.SerializeToString(), options, providers=["CPUExecutionProvider"])
            for each in (model, raised)
        )
        np.testing.assert_array_equal(*(session.run(None, {"input": images})[0] for session in (first, second)))


def test_a_model_that_is_there_already_is_returned_as_it_is() -> None:
    model = small("y = Abs (x)", 22)
    assert raise_opset(model, 22) is model
    assert raise_opset(model, 19) is model


@pytest.mark.parametrize(
    "body",
    [
        """s = Constant <value_floats = [1.0, 1.0]> () b = Constant <value_floats = [0.0, 0.0]> ()
           y = GroupNormalization <num_groups = 2> (x, s, b)""",
        """grid = Constant <value = float[1, 8, 8, 2] {0}> ()
           z = GridSample <mode = "bilinear"> (x, grid) y = Abs (z)""",
        "y = Imaginary (x)",
    ],
    ids=["scale per channel since 21", "modes renamed in 20", "unknown"],
)
def test_operators_that_were_redefined_keep_the_opset(body: str) -> None:
    model = small(body, 18)
    assert raise_opset(model, 22) is model
    assert versions(model) == {18}


# ---- types ----


@pytest.mark.parametrize(
    ("operator", "opset", "precision", "position", "output", "allowed"),
    [
        ("Conv", 21, "bfloat16", 0, False, False),
        ("Conv", 22, "bfloat16", 0, False, True),
        ("Conv", 18, "float16", 0, True, True),
        ("Resize", 20, "float16", 0, False, True),
        ("Resize", 20, "float16", 2, False, False),  # scales
        ("Concat", 20, "bfloat16", 7, False, True),  # variadic
        ("QuantizeLinear", 18, "float16", 1, False, False),
        ("QuantizeLinear", 19, "float16", 1, False, True),
        ("DequantizeLinear", 18, "float16", 0, True, False),
        ("Relu", 20, "float32", 0, True, True),
        ("Shape", 20, "float32", 0, True, False),
    ],
)
def test_what_the_schemas_allow(
    operator: str, opset: int, precision: str, position: int, output: bool, allowed: bool
) -> None:
    assert permits(schema_of(operator, "", opset), position, precision, output) == allowed


def test_operators_of_ours_have_schemas_and_unknown_ones_have_none() -> None:
    schema = schema_of("KeySemanticAttention", "agileir", 20)
    assert permits(schema, 0, "bfloat16")
    assert not permits(schema, 1, "float16"), "the dictionary is int32"
    assert schema_of("Gelu", "", 19) is None
    assert schema_of("Gelu", "com.example", 20) is None


@pytest.mark.parametrize("name", OPERATORS)
def test_function_bodies_are_valid_in_half_precision(name: str) -> None:
    """In every opset, but for a convolution in bfloat16 before 22."""
    for opset in (18, 20, 22, 23):
        function = OPERATORS[name].function(opset, window_size=4, **STATICS.get(name, {}))
        assert body_refusal(function, "float16", opset) is None
        refusal = body_refusal(function, "bfloat16", opset)
        filtered = name == "GroupShiftedWindowAttention" and opset < 22
        assert refusal == (f"Conv in its body takes no bfloat16 in opset {opset}" if filtered else None)
