"""What an audit reads out of layer lists, and how it judges them; lists as TensorRT 10, 11 and RTX write them."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest
from onnx import helper

from agileir_export.engines.audit.kernels import number_type, operator_of
from agileir_export.engines.audit.verdict import (
    FLOAT_OPERATORS,
    Audit,
    Kernel,
    float32_nodes,
    judge,
    kernels_from_inspector,
    kernels_from_rtx_log,
    product_nodes,
    standing_for,
)

ATTENTION = (
    "Name: _gemm_mha_v2_myl1_20, LayerType: kgen, Inputs: [ { Name: q, Dimensions: [-1,256,48], Strides: [48,-1,1], "
    "StrideOrder: [1,2,0], Datatype: Half, Format: (Arbitrary) Format with stride order = [1,2,0] }, { Name: k, "
    "Dimensions: [-1,48,256], Datatype: Half, Format: (Linear) Row major linear format }, { Name: bias, Dimensions: "
    "[1,1,1,256,256], Datatype: Float, Format: (Linear) Row major linear format }, { Name: v, Dimensions: [-1,256,48], "
    "Datatype: Half, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: y, Dimensions: "
    "[-1,256,48], Datatype: Half, Format: (Linear) Row major linear format }], TacticName: _gemm_mha_v2_0x55c9, "
    "StreamId: 0, Metadata: [ONNX Layer: node_of_attended | node_attention (KeySemanticAttention)]\x1f"
    "[ONNX Layer: node_of_similarity_t | node_attention (KeySemanticAttention)]"
)
FUSED = (
    "Name: __myl_FcAddDivErf_myl1_7, LayerType: runtime_fusion, Inputs: [ { Name: x, Dimensions: [-1,12], Datatype: "
    "Half, Format: (Linear) Row major linear format }], Constants: [ { Name: alpha, Dimensions: [1], Datatype: Float, "
    "Format: (Linear) Row major linear format }, { Name: w, Dimensions: [12,24], Datatype: Half, Format: (Linear) Row "
    "major linear format }], Outputs: [ { Name: y, Dimensions: [-1,24], Datatype: Half, Format: (Linear) Row major "
    "linear format }], TacticName: , StreamId: 0, Metadata: [ONNX Layer: node_gelu]\x1f[ONNX Layer: node_MatMul_1]"
)
SOFTMAX = (
    "Name: __myl_AddMaxrSubExpSumDiv_myl1_21, LayerType: kgen, Inputs: [ { Name: (Unnamed Layer* 3) [Shuffle]_output, "
    "Dimensions: [-1,16,16], Datatype: Half, Format: (Linear) Row major linear format }], Constants: [ { Name: b, "
    "Dimensions: [49,2], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: y, "
    "Dimensions: [-1,16,16], Datatype: Half, Format: (Linear) Row major linear format }], TacticName: __myl_AddMaxr, "
    "StreamId: 0, Metadata: [ONNX Layer: node_of_probability]"
)
WAIT = "Name: __mye333100_myl1_12, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , Metadata: "


def log(*lines: str) -> str:
    return "\n".join(["Layers:", *lines, "", "I/O Tensors:", " Name: input, IOMode: Input, DataType: Float"])


def gemm(precision: str = "float16", node: str = "node_MatMul", **more: Any) -> Kernel:
    return Kernel(f"{node}_myl1_1", **{"kind": "gemm", "precision": precision, "origin": (node,), **more})


def operand(name: str, type_: str) -> str:
    return f"{{ Name: {name}, Dimensions: [6,64,64], Datatype: {type_}, Format: (Linear) Row major linear format }}"


def test_a_fused_attention_has_the_type_of_its_operands_and_not_of_its_bias() -> None:
    (kernel,) = kernels_from_rtx_log([log(ATTENTION)])
    assert (kernel.kind, kernel.precision) == ("attention", "float16")
    assert {operator_of(node) for node in kernel.origin} == {"KeySemanticAttention"}
    assert len(kernel.origin) == 2
    (wider,) = kernels_from_rtx_log(
        [log(ATTENTION.replace("[-1,48,256], Datatype: Half", "[-1,48,256], Datatype: Float"))]
    )
    assert wider.precision == "float32"


@pytest.mark.parametrize(
    ("types", "result", "expected"),
    [
        (("Float", "Float", "Half", "Half", "Half"), "Half", "float16"),  # bias and mask before query, key and value
        (("Half", "Half", "Float", "Float", "Half"), "Half", "float16"),
        (("Float", "Float", "Half"), "Half", "float32"),  # query and key in float32, only the value in half
        (("Float", "Float", "Float", "Half"), "Half", "float32"),
        (("Half", "Half", "Float", "Float", "Half"), "Int8", "float16"),  # what reads the result is quantised
        (("Half", "Half", "Float", "Float", "Half"), "Float", "float32"),
        (("Float", "Float", "Float", "Float"), "Int8", "float32"),
        (("Float", "Float", "Float", "Half", "Half", "Half"), "Int8", "float32"),  # which three are the addends?
        (("Int8", "Int8", "Int8", "Float"), "Int8", "int8"),
    ],
)
def test_the_factors_of_a_fused_attention_are_told_from_its_addends(
    types: tuple[str, ...], result: str, expected: str
) -> None:
    inputs = ", ".join(operand(f"x{number}", type_) for number, type_ in enumerate(types))
    line = (
        f"Name: _gemm_mha_v2_myl1_6, LayerType: kgen, Inputs: [ {inputs}], Constants: [], Outputs: "
        f"[ {operand('y', result)}], TacticName: _gemm_mha_v2_0x1, StreamId: 0, Metadata: [ONNX Layer: node_of_sum]"
    )
    (kernel,) = kernels_from_rtx_log([log(line)])
    assert (kernel.kind, kernel.precision) == ("attention", expected)


def test_products_inside_fused_kernels_are_products() -> None:
    (kernel,) = kernels_from_rtx_log([log(FUSED)])
    assert (kernel.kind, kernel.precision, kernel.origin) == ("gemm", "float16", ("node_gelu", "node_MatMul_1"))
    (quantised,) = kernels_from_rtx_log([log(FUSED.replace("Datatype: Half", "Datatype: Int8"))])
    assert quantised.precision == "int8"
    (mixed,) = kernels_from_rtx_log([log(FUSED.replace("[12,24], Datatype: Half", "[12,24], Datatype: Float"))])
    assert mixed.precision == "float32", "the wider of the two operands"


def test_other_kernels_have_the_types_at_their_edges() -> None:
    softmax, wait = kernels_from_rtx_log([log(SOFTMAX, WAIT)])
    assert (softmax.kind, softmax.precision) == ("softmax", "float32+float16")
    assert wait.kind == "control"
    audit = judge([softmax, wait, gemm()], "float16")
    assert [share.kind for share in audit.shares] == ["gemm", "softmax"]
    assert [(entry.kind, entry.count) for entry in audit.kept] == [("softmax", 1)]
    assert Audit.from_json(json.loads(json.dumps(audit.to_json()))) == audit


def test_lists_of_several_engines_are_kept_apart() -> None:
    kernels = kernels_from_rtx_log(["Building", log(FUSED), "More", log(FUSED, ATTENTION)])
    assert [kernel.engine for kernel in kernels] == [0, 1, 1]
    assert kernels_from_rtx_log(["no list"]) == []


def edges(*tensors: tuple[str, list[int], str], **more: str) -> list[dict[str, Any]]:
    """Inputs, constants or outputs as TensorRT 11 writes them."""
    return [{"Name": name, "Dimensions": sizes, "Datatype": kind, **more} for name, sizes, kind in tensors]


SIZES = [1, 64, 56, 56]
CONVOLUTION_10 = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "x", "Dimensions": SIZES, "Format/Datatype": "Channel major FP16 format where C % 8 == 0"}],
    "Outputs": [{"Name": "y", "Dimensions": SIZES, "Format/Datatype": "Channel major FP16 format"}],
    "Weights": {"Type": "Half", "Count": 36864},
    "Bias": {"Type": "Half", "Count": 64},
    "TacticName": "sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x64",
    "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
}
ROWS = "(Linear) Row major linear format"
GEMM_11 = {
    "Name": "node_MatMul_1_myl0_3",
    "LayerType": "gemm",
    "Inputs": edges(("x", [-1, 12], "BFloat16"), Format=ROWS),
    "Constants": edges(("w", [12, 36], "BFloat16"), ("alpha", [1], "Float"), Format=ROWS),
    "Outputs": edges(("y", [-1, 36], "BFloat16"), Format=ROWS),
    "TacticName": "sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x32",
    "Metadata": "[ONNX Layer: node_MatMul_1]",
}


def test_the_inspector_of_tensorrt_10_and_11() -> None:
    ten = kernels_from_inspector(json.dumps({"Layers": [CONVOLUTION_10], "Bindings": ["x", "y"]}))
    assert [(k.kind, k.precision, k.origin) for k in ten] == [("convolution", "float16", ("conv1", "relu1"))]
    eleven = kernels_from_inspector(json.dumps({"Layers": [GEMM_11], "I/O Tensors": [{"Name": "input"}]}))
    assert [(k.kind, k.precision) for k in eleven] == [("gemm", "bfloat16")]
    assert kernels_from_inspector(json.dumps(GEMM_11)) == eleven, "one layer alone"


def test_layers_that_only_their_tactic_or_name_tells_of() -> None:
    fused = GEMM_11 | {"LayerType": "fusion", "Name": "projection_fused"}
    convolution = fused | {"TacticName": CONVOLUTION_10["TacticName"]}
    plain = {key: value for key, value in GEMM_11.items() if key != "Metadata"}
    kernels = kernels_from_inspector(json.dumps([fused, convolution, plain, plain | {"Name": "conv1 + relu1"}]))
    assert [kernel.kind for kernel in kernels] == ["gemm", "convolution", "gemm", "gemm"]
    assert [kernel.origin for kernel in kernels[2:]] == [("node_MatMul_1",), ("conv1", "relu1")]


def test_a_type_that_is_not_said_is_unknown_unless_the_tactic_tells() -> None:
    free = {"Name": "x", "Dimensions": [-1, 12], "Format/Datatype": "N/A due to dynamic shapes"}
    layer = {"Name": "matmul", "LayerType": "MatrixMultiply", "Inputs": [free, free], "Outputs": [free]}
    known = gemm()
    for tactic, expected in (("", "unknown"), ("sm80_xmma_gemm_i8i8_i8i32_f32_tn", "int8"), ("cublas", "unknown")):
        (kernel,) = kernels_from_inspector(json.dumps({"Layers": [layer | {"TacticName": tactic}]}))
        assert (kernel.kind, kernel.precision) == ("gemm", expected)
    assert judge([kernel, known], "float16").passed
    assert "gemm kernel of unknown type: matmul" in judge([kernel, known], "float16").unknown
    assert not judge([kernel], "float16").passed, "nothing at all is known"


def test_names_alone_prove_nothing() -> None:
    kernels = kernels_from_inspector(json.dumps({"Layers": ["conv1 + relu1", "matmul"]}))
    assert {(k.kind, k.precision) for k in kernels} == {("unknown", "unknown")}
    assert "says of none of its 2 kernels" in judge(kernels, "float32").problems[0]
    assert "lists no kernels" in judge([], "float32").problems[0]


def test_an_opaque_subgraph_is_unknown() -> None:
    layer = {"Name": "{ForeignNode[a...b]}", "LayerType": "Myelin", "Inputs": [], "Outputs": []}
    (kernel,) = kernels_from_inspector(json.dumps([layer]))
    assert (kernel.kind, kernel.precision) == ("unknown", "unknown")


@pytest.mark.parametrize("text", ["", "not JSON", "3", '{"Bindings": []}'])
def test_an_answer_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="engine inspector"):
        kernels_from_inspector(text)


def test_float32_products_that_round_to_tf32_are_found_by_their_tactic() -> None:
    layer = GEMM_11 | {
        "Inputs": edges(("x", [4, 12], "Float")),
        "Constants": edges(("w", [12, 36], "Float")),
        "TacticName": "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n",
    }
    kernels = kernels_from_inspector(json.dumps([layer]))
    assert kernels[0].precision == "float32"
    assert judge(kernels, "tf32").unknown == ()
    assert judge(kernels, "tf32").passed
    silent = judge([gemm("float32")], "tf32")
    assert silent.passed
    assert "no kernel's name tells" in silent.unknown[0]
    assert judge(kernels, "float32").problems == ("1 kernels round to TF32: node_MatMul_1",)


def test_plugins_are_judged_by_their_first_input() -> None:
    def plugin(name: str, datatype: str) -> list[Kernel]:
        x = {"Name": "x", "Dimensions": [1, 64, 64, 60], "Format/Datatype": f"Row major linear {datatype} format"}
        layer = {"Name": name, "LayerType": "PluginV3", "Inputs": [x], "Outputs": []}
        return kernels_from_inspector(json.dumps([layer]))

    half = plugin("node_shifted_window_attention_1", "FP16")
    assert (half[0].kind, half[0].precision) == ("plugin", "float16")
    assert judge(half, "float16").passed
    assert not judge(plugin("node_shifted_window_attention_1", "FP32"), "float16").passed
    dictionary = judge(plugin("node_key_semantic_dictionary", "FP32"), "float16")
    assert dictionary.passed
    assert "nearly equal" in dictionary.kept[0].reason


def test_a_kernel_is_excused_by_its_products_and_not_by_what_else_it_computes() -> None:
    chosen = "node_of_similarity | node_dictionary (KeySemanticDictionary)"
    counted = "node_of_y_start | node_dictionary (KeySemanticDictionary)"
    attended = "node_of_attended | node_attention (KeySemanticAttention)"
    products = [chosen, attended, "node_MatMul"]

    def passes(*origin: str) -> bool:
        kernel = Kernel("a_kernel", "attention", "float32", origin)
        return judge([kernel, gemm()], "float16", products=products, by_design={"node_Conv": "it is small"}).passed

    assert passes(chosen, counted)
    assert passes(counted), "of a kernel without a known product, what it belongs to counts"
    assert not passes(attended, counted)
    assert not passes(chosen, attended)
    assert not passes(chosen, "node_MatMul")
    assert passes(chosen, "node_Conv")


def test_what_is_not_quantised_has_its_reason_too() -> None:
    chosen = "node_of_similarity | node_dictionary (KeySemanticDictionary)"
    kernels = [
        gemm("int8"),
        gemm("float32", node="node_Conv", kind="convolution"),
        gemm("float32", node="node_Conv_1", kind="convolution"),
        Kernel("a_kernel", "attention", "float32", (chosen,)),
        Kernel("b_kernel", "pointwise", "float32"),
    ]
    products = ["node_MatMul", "node_Conv", "node_Conv_1", chosen]
    audit = judge(kernels, "int8", products=products, by_design={"node_Conv": "it is small"})
    assert audit.passed
    assert [(kept.kind, kept.count, kept.reason) for kept in audit.kept] == [
        ("attention", 1, FLOAT_OPERATORS["KeySemanticDictionary"]),
        ("convolution", 1, "it is small"),
    ]


def test_what_contradicts_the_request_is_counted_and_named() -> None:
    kernels = [gemm(node=f"node_{n}", precision="float32" if n < 6 else "float16") for n in range(8)]
    audit = judge(kernels, "float16")
    assert audit.problems == (
        "6 of 8 gemm kernels compute in float32, not in float16: node_0, node_1, node_2, node_3 and 2 more",
    )
    assert audit.rows() == [("gemm", "float32", 6, "75 %"), ("gemm", "float16", 2, "25 %")]
    document = json.loads(json.dumps(audit.to_json()))
    assert document["passed"] is False
    assert Audit.from_json(document) == audit
    with pytest.raises(KeyError):
        judge(kernels, "float8")


def test_a_product_expanded_inside_a_fused_kernel_is_found_there() -> None:
    inside = Kernel("__myl_MulMulAdd_myl1_3", "pointwise", "float16", ("small",))
    assert judge([gemm(), inside], "float16", products=["node_MatMul", "small"]).unknown == ()
    float32 = Kernel("__myl_MulMulAdd_myl1_3", "pointwise", "float32", ("small",))
    assert "another type: small" in judge([gemm(), float32], "float16", products=["small"]).problems[0]
    mixed = Kernel("__myl_MulMulAdd_myl1_3", "pointwise", "float32+float16", ("small",))
    assert "several types: small" in judge([gemm(), mixed], "float16", products=["small"]).unknown[0]
    assert judge([mixed], "float16", products=["small"]).passed, "nothing contradicts the request"
    assert not judge([mixed], "float16").passed, "where are the products?"
    assert "in no kernel's origin" in judge([gemm()], "float16", products=["gone"]).unknown[0]


def test_quantised_nodes_in_no_kernel_are_reported() -> None:
    audit = judge([gemm("int8")], "int8", expected_int8=["node_MatMul", "gone"])
    assert audit.problems == ("1 of 2 quantised nodes do not run in int8: gone (in no kernel)",)


def test_product_nodes_are_named_as_engines_name_them() -> None:
    body = helper.make_function(
        "agileir",
        "ShiftedWindowAttention",
        ["qkv"],
        ["y"],
        [helper.make_node("MatMul", ["qkv", "qkv"], ["logits"]), helper.make_node("Softmax", ["logits"], ["y"])],
        [helper.make_opsetid("", 20)],
    )
    nodes = [
        helper.make_node("ShiftedWindowAttention", ["x"], ["a"], domain="agileir", name=f"call_{n}") for n in range(2)
    ]
    nodes += [helper.make_node("Conv", ["a", "w"], ["b"], name="conv"), helper.make_node("Gemm", ["b", "w"], ["c"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []), functions=[body])
    assert product_nodes(model) == [
        "node_of_logits | call_0 (ShiftedWindowAttention)",
        "node_of_logits | call_1 (ShiftedWindowAttention)",
        "conv",
        "node_of_c",
    ]


def converted(*floats: str) -> onnx.ModelProto:
    """Two products of the picture in half precision, those named in float32, and a count that is float32 in itself."""
    nodes, last = [], "input"
    for name in ("first", "second"):
        kind = onnx.TensorProto.FLOAT if name in floats else onnx.TensorProto.FLOAT16
        nodes += [
            helper.make_node("Cast", [last], [f"{name}_in"], to=kind),
            helper.make_node("MatMul", [f"{name}_in", f"{name}_in"], [f"{name}_out"], name=name),
        ]
        last = f"{name}_out"
    nodes += [
        helper.make_node("Cast", [last], ["output"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Greater", ["output", "output"], ["truth"]),
        helper.make_node("Cast", ["truth"], ["ones"], to=onnx.TensorProto.FLOAT),
        helper.make_node("MatMul", ["ones", "ones"], ["count"], name="counting"),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 4]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "g", values[:1], [values[1], helper.make_empty_tensor_value_info("count")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_only_products_that_a_conversion_tells_of_are_excused() -> None:
    record = {"op": "MatMul", "reason": "keys are chosen from it", "count": 1}
    exact = {"counting": "integers carried in float32, which has them exactly"}
    assert float32_nodes(converted(), [record]) == exact
    assert float32_nodes(converted("first"), [record]) == exact | {"first": "keys are chosen from it"}
    assert float32_nodes(converted("first"), []) == exact
    assert float32_nodes(converted("first"), [record | {"op": "Conv"}]) == exact
    assert float32_nodes(converted("first", "second"), [record]) == exact, "one of them was forgotten: which?"


def test_a_kernel_is_excused_if_all_its_products_are() -> None:
    both = gemm("float32", origin=("bias", "first", "second"))
    reasons = {"first": "why", "bias": "other"}
    products = ["first", "second"]
    assert judge([both, gemm()], "float16", products=[*products, "node_MatMul"], by_design=reasons).passed is False
    assert judge([both, gemm()], "float16", products=products, by_design=reasons | {"second": "why"}).passed
    assert judge([both, gemm()], "float16", products=["first"], by_design={"first": "why"}).passed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Row major linear FP32", "float32"),
        ("Row major linear BFloat16 format", "bfloat16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half", "float16"),
        ("Float", "float32"),
        ("UInt8", "uint8"),
        ("Int64", "int64"),
        ("FP8", "float8"),
        ("N/A due to dynamic shapes", "unknown"),
        ("", "unknown"),
    ],
)
def test_spellings_of_number_types(text: str, expected: str) -> None:
    assert number_type(text) == expected


# ---- half blocks ----


def half_block(precision: str) -> Kernel:
    return Kernel("[HALF]", "plugin", precision, ("attention.HalfBlockTokenTail",))


INSIDE = {"attention.HalfBlockTokenTail": ("norm", "first", "second"), "attention": ()}


def test_a_half_block_holds_the_products_that_it_stands_for() -> None:
    kernels = standing_for([half_block("float16"), Kernel("conv", "convolution", "float16", ("conv",))], INSIDE)
    assert [kernel.origin for kernel in kernels] == [
        ("attention.HalfBlockTokenTail", "norm", "first", "second"),
        ("conv",),
    ]
    audit = judge(kernels, "float16", products=["first", "second", "conv"])
    assert audit.passed and not audit.unknown
    lost = judge(standing_for(kernels[1:], INSIDE), "float16", products=["first", "second", "conv"])
    assert any("2 products are in no kernel's origin" in unknown for unknown in lost.unknown)


def test_a_half_block_of_another_precision_fails_unless_all_its_products_may_have_it() -> None:
    kernels = standing_for([half_block("float32"), Kernel("conv", "convolution", "float16", ("conv",))], INSIDE)
    products = ["first", "second", "conv"]
    assert "1 of 1 plugin kernels compute in float32" in judge(kernels, "float16", products=products).problems[0]
    one = judge(kernels, "float16", products=products, by_design={"first": "asked for"})
    assert not one.passed
    both = judge(kernels, "float16", products=products, by_design=dict.fromkeys(("first", "second"), "asked for"))
    assert both.passed and [kept.reason for kept in both.kept] == ["asked for"]
