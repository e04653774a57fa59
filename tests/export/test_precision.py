"""Half precision as a graph pass: types, names and metadata of the file, what stays in float32, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from agileir_export.engines import OnnxRuntimeRunner, TorchRunner, faithful_session
from agileir_export.errors import InputError, InternalError, OutputError, Unsupported
from agileir_export.export import OnnxArtifact, read_artifact
from agileir_export.export.artifact import BLOCKS_KEY, PROVENANCE_KEY, SPEC_KEY
from agileir_export.export.element_types import HALF_TYPES
from agileir_export.export.passes import Conversion, lower_precision
from agileir_export.export.precision import HALF_PRECISIONS, convert_precision

from . import networks
from .written import half_file

FLOORS = {"float16": 60, "bfloat16": 45}
"""dB against PyTorch, as the parity ladder has them."""

KEYS = "keys are chosen from it, and nearly equal ones flip in float16"


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {entry.name: entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.value_info, *graph.output)}
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}


def close(artifact: OnnxArtifact, kind: str, floor: float, size: tuple[int, int] = (9, 13)) -> None:
    model = networks.shared(kind)
    images = networks.images(1, model.spec.channels, *size)
    found = OnnxRuntimeRunner(artifact).run(images)
    assert networks.psnr(found, TorchRunner(model).run(images)) >= floor


# ---- whole networks ----


@pytest.mark.parametrize("precision", HALF_PRECISIONS)
@pytest.mark.parametrize("kind", ["agileir", "swinir-light", "swinir-classical", "swinir-real", "swinir-jpeg"])
def test_everything_is_half_between_a_float32_input_and_output(
    kind: str, precision: str, folder: Path, tmp_path: Path
) -> None:
    source = networks.exported(folder, kind)
    before = source.path.read_bytes()
    half = half_file(source, tmp_path / "half.onnx", precision)
    assert source.path.read_bytes() == before
    assert half.precision == precision
    assert half.conversion == {"precision": precision, "float32_nodes": [], "underflows": {}}
    graph = onnx.load(half.path).graph
    assert {tensor.data_type for tensor in graph.initializer} - {7} <= {HALF_TYPES[precision], 1}
    float32 = [tensor for tensor in graph.initializer if tensor.data_type == 1]
    assert all(any(n.op_type == "Resize" and t.name in n.input for n in graph.node) for t in float32)
    assert sum(node.op_type == "Cast" for node in graph.node) == 2
    types = types_of(onnx.load(half.path))
    assert types["input"] == types["output"] == 1
    assert {types[name] for node in graph.node for name in node.output} - {7} == {1, HALF_TYPES[precision]}
    if precision == "float16":
        multiple = half.spec.pad_multiple
        sizes = networks.named_sizes(onnx.load(half.path), 2, half.spec.channels, 3 * multiple, 4 * multiple)
        assert {len(values) for values in sizes.values()} == {1}, "one name is one size"
    close(half, kind, FLOORS[precision])


def test_the_file_says_the_same_of_itself(swinir: OnnxArtifact, tmp_path: Path) -> None:
    half = half_file(swinir, tmp_path / "half.onnx", "float16")
    for name in ("spec", "provenance", "blocks", "operators", "fixed_sizes", "rescale"):
        assert getattr(half, name) == getattr(swinir, name), name
    full, converted = onnx.load(swinir.path), onnx.load(half.path)
    assert full.producer_name == converted.producer_name
    keys = {entry.key for entry in converted.metadata_props}
    assert {SPEC_KEY, PROVENANCE_KEY, BLOCKS_KEY} <= keys
    weights = [{tensor.name for tensor in model.graph.initializer} for model in (full, converted)]
    assert weights[0] == weights[1]
    computed = {name for node in converted.graph.node for name in node.output}
    assert set(half.blocks) <= computed
    sizes = {dim.dim_param for value in converted.graph.value_info for dim in value.type.tensor_type.shape.dim}
    assert sizes <= {"", "batch", "height", "width", "2*height", "2*width"}, "no invented names"
    assert OnnxRuntimeRunner(half).describe()["half_precision"] == "emulated"
    again = half_file(swinir, tmp_path / "again.onnx", "float16")
    assert again.sha256 == half.sha256


@pytest.mark.parametrize("precision", HALF_PRECISIONS)
def test_static_and_decomposed_files(precision: str, folder: Path, tmp_path: Path) -> None:
    static = half_file(networks.exported(folder, "swinir-light", static=(8, 12)), tmp_path / "static.onnx", precision)
    assert static.fixed_sizes == {"batch": 1, "height": 8, "width": 12}
    close(static, "swinir-light", FLOORS[precision], (8, 12))
    plain = networks.exported(folder, "agileir", decomposed=True)
    half = half_file(plain, tmp_path / "plain.onnx", precision)
    kept = {entry["op"]: entry["reason"] for entry in half.conversion["float32_nodes"]}
    assert kept == dict.fromkeys(("Add", "Softmax"), "float32 by intent of the operator it belongs to")
    model = onnx.load(half.path)
    types = types_of(model)
    assert {types[node.output[0]] for node in model.graph.node if node.op_type == "Softmax"} == {1}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv")]
    assert {types[node.output[0]] for node in products} == {HALF_TYPES[precision]}
    close(half, "agileir", FLOORS[precision])


@pytest.mark.parametrize(
    "opset",
    [18, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (19, 21, 22)), 23],
)
def test_bfloat16_in_every_opset(opset: int, folder: Path, tmp_path: Path) -> None:
    """The opset is raised to the first with a bfloat16 Conv, or the Convs stay, where that is forbidden."""
    source = networks.exported(folder, "agileir", opset=opset)
    raised = half_file(source, tmp_path / "raised.onnx", "bfloat16")
    assert not raised.conversion["float32_nodes"]
    model = onnx.load(raised.path)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert versions == {"": max(opset, 22), "agileir": 1}
    assert {entry.version for f in model.functions for entry in f.opset_import if not entry.domain} == {versions[""]}
    close(raised, "agileir", 45)
    kept = half_file(source, tmp_path / "kept.onnx", "bfloat16", keep_opset=True)
    assert {entry.domain: entry.version for entry in onnx.load(kept.path).opset_import}[""] == opset
    reasons = {entry["op"]: entry["reason"] for entry in kept.conversion["float32_nodes"]}
    conv = f"takes no bfloat16 in opset {opset}"
    expected = {"Conv": conv, "GroupShiftedWindowAttention": f"Conv in its body {conv}"}
    assert reasons == (expected if opset < 22 else {})
    close(kept, "agileir", 45)


@pytest.mark.parametrize("kind", ["semanir", "semanir-unet"])
def test_keys_are_chosen_in_float32_and_layers_are_half(kind: str, folder: Path, tmp_path: Path) -> None:
    half = half_file(networks.exported(folder, kind), tmp_path / "half.onnx", "float16")
    model = onnx.load(half.path)
    types = types_of(model)
    assert {entry["reason"] for entry in half.conversion["float32_nodes"]} == {KEYS}
    for node in model.graph.node:
        if node.op_type == "KeySemanticDictionary":
            assert types[node.input[0]] == 1
        elif node.op_type in ("MatMul", "Gelu", "KeySemanticAttention"):
            assert types[node.output[0]] == 10
    convolutions = Counter(types[node.output[0]] for node in model.graph.node if node.op_type == "Conv")
    assert convolutions[1] == 1, "the first one, which sees the image"
    assert convolutions[10] > 3
    stages = [types[name] for name in half.blocks if "blocks" in name and name in types]
    assert set(stages) == {10}


# ---- small graphs ----


def small(body: str, opset: int = 20, weights: str = "") -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["": {opset}]>
      g (float[n, 4] input) => (float[n, 4] output) {weights} {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model


def weighted(operator: str, *values: float) -> onnx.ModelProto:
    """The input and four weights under one operator."""
    model = small(f"output = {operator} (input, w)", weights="<float[4] w = {1,2,3,4}>")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(values, np.float32), "w"))
    return model


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def conversion(model: onnx.ModelProto) -> Any:
    return json.loads(next(entry.value for entry in model.metadata_props if entry.key == "agileir.conversion"))


def test_a_node_that_stays_float32_reads_the_unrounded_input() -> None:
    """Casts are made on demand: the first node sees the image itself, and two such nodes in a row see no half."""
    shape = "s = Constant <value_ints = [1, 1, -1, 4]> () t = Constant <value_ints = [-1, 4]> ()"
    body = f"{shape} i = Reshape (input, s) a = Conv (i, w) b = Conv (a, w) c = Neg (b) output = Reshape (c, t)"
    model = small(body, weights="<float[1,1,1,1] w = {2}>")
    result = convert_precision(model, "bfloat16", keep_opset=True)
    assert conversion(result)["float32_nodes"] == [
        {"count": 2, "op": "Conv", "reason": "takes no bfloat16 in opset 20"}
    ]
    assert Counter(kinds(result))["Cast"] == 4  # in, out of the first reshape, into the negation, out
    types = types_of(result)
    assert [types[name] for name in ("a", "b", "c")] == [1, 1, 16]


def test_scales_of_resize_and_integers_are_left_alone() -> None:
    body = """size = Shape (input)
      four = Constant <value_ints = [-1, 1, 4, 1]> () i = Reshape (input, four)
      up = Resize <mode = "nearest"> (i, , scales)
      output = Reshape (up, size)"""
    result = convert_precision(small(body, weights="<float[4] scales = {1, 1, 1, 1}>"), "bfloat16")
    types = types_of(result)
    assert (types["scales"], types["size"], types["up"]) == (1, 7, 16)
    assert not conversion(result)["float32_nodes"]


@pytest.mark.parametrize("back", ["CastLike (g, a)", "Cast <to = 1> (g)"], ids=["function", "decomposed"])
def test_a_weight_read_in_both_types_is_stored_in_both(back: str) -> None:
    body = f"a = Mul (input, w) f = Cast <to = 1> (a) g = Mul (f, w) h = {back} output = Add (h, a)"
    result = convert_precision(small(body, weights="<float[4] w = {1,2,3,4}>"), "float16")
    assert {tensor.name: tensor.data_type for tensor in result.graph.initializer} == {"w": 1, "w_float16": 10}
    types = types_of(result)
    assert [types[name] for name in "afgh"] == [10, 1, 1, 10]


def test_no_casts_cancel() -> None:
    result = convert_precision(
        small("a = Neg (input) b = Cast <to = 1> (a) c = CastLike (b, a) output = Neg (c)"), "float16"
    )
    graph = result.graph
    producers = {name: node for node in graph.node for name in node.output}
    x = np.array([[0.1, 1e-9, 7e4, -3]], np.float32)
    assert kinds(result).count("Cast") <= 3
    for node in graph.node:
        before = producers.get(node.input[0])
        assert not (node.op_type == "Cast" and before is not None and before.op_type == "Cast")
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(faithful_session(result).run(None, {"input": x})[0], wanted)


@pytest.mark.parametrize(("precision", "ends"), [("float16", "65504"), ("bfloat16", "3.38953e+38")])
def test_weights_beyond_the_range_are_refused(precision: str, ends: str) -> None:
    values = [1, -7e4, 2, 3] if precision == "float16" else [1, -3.4e38, 2, 3]
    with pytest.raises(Unsupported) as caught:
        convert_precision(weighted("Mul", *values), precision)
    assert f"The weights w hold {values[1]:.6g}: {precision} ends at {ends}" in caught.value.what


def test_weights_that_vanish_are_counted() -> None:
    model = weighted("Mul", 1e-9, 0, -2e-8, 1)
    assert conversion(convert_precision(model, "float16"))["underflows"] == {"w": 2}
    assert conversion(convert_precision(model, "bfloat16"))["underflows"] == {}


def test_infinite_weights_stay_infinite() -> None:
    values = (-np.inf, 1, np.nan, np.inf)
    stored = numpy_helper.to_array(convert_precision(weighted("Max", *values), "float16").graph.initializer[0])
    np.testing.assert_array_equal(stored.astype(np.float32), values)


# ---- quantised files ----


def quantised(scale: float, opset: int) -> onnx.ModelProto:
    model = small(
        """q = QuantizeLinear (input, s, z) a = DequantizeLinear (q, s, z)
           v = QuantizeLinear (w, s, z) b = DequantizeLinear (v, s, z)
           m = MatMul (a, b) output = Add (m, bias)""",
        opset,
        "<float s = {1}, int8 z = {0}, float[4,4] w = {1,2,3,4,1,2,3,4,4,3,2,1,1,1,1,1}, float[4] bias = {1,2,3,4}>",
    )
    for tensor in model.graph.initializer:
        if tensor.name == "s":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(scale), "s"))
    return model


@pytest.mark.parametrize("precision", HALF_PRECISIONS)
@pytest.mark.parametrize("opset", [18, 20])
def test_quantisation_keeps_its_integers_and_gets_half_scales(precision: str, opset: int) -> None:
    result = convert_precision(quantised(0.5, opset), precision)
    types = types_of(result)
    half = HALF_TYPES[precision]
    assert [types[name] for name in "qvzabms"] == [3, 3, 3, half, half, half, half]
    assert not conversion(result)["float32_nodes"]
    assert result.opset_import[0].version == max(opset, 22 if precision == "bfloat16" else 19)
    x = np.array([[1, -2, 0.5, 300]], np.float32)
    found = [faithful_session(model).run(None, {"input": x})[0] for model in (quantised(0.5, opset), result)]
    np.testing.assert_allclose(found[1], found[0], rtol=2**-7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scale": 1e-6, "opset": 20}, "its scales leave the range of float16"),
        ({"scale": 0.5, "opset": 18}, "takes no float16 in opset 18"),
    ],
    ids=["tiny scale", "old opset"],
)
def test_scales_that_cannot_be_half_stay(changes: dict[str, Any], reason: str) -> None:
    result = convert_precision(quantised(**changes), "float16", keep_opset=True)
    types = types_of(result)
    assert [types[name] for name in "qvabms"] == [3, 3, 1, 1, 10, 1]
    assert {(entry["op"], entry["reason"]) for entry in conversion(result)["float32_nodes"]} == {
        ("QuantizeLinear", reason),
        ("DequantizeLinear", reason),
    }


# ---- refusals ----


def test_what_is_half_already_is_refused(swinir: OnnxArtifact, tmp_path: Path) -> None:
    half = half_file(swinir, tmp_path / "half.onnx", "float16")
    with pytest.raises(InputError, match="in half precision already"):
        half_file(half, tmp_path / "twice.onnx", "bfloat16")
    assert not (tmp_path / "twice.onnx").exists()
    with pytest.raises(InternalError, match="float16 already"):
        convert_precision(small("a = Cast <to = 10> (input) output = Cast <to = 1> (a)"), "float16")


def test_other_precisions_and_folders_are_refused(swinir: OnnxArtifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float16, bfloat16, got 'float8'"):
        half_file(swinir, tmp_path / "half.onnx", "float8")
    with pytest.raises(OutputError):
        half_file(swinir, tmp_path / "missing" / "half.onnx", "float16")
    assert list(tmp_path.iterdir()) == []


def test_subgraphs_are_refused() -> None:
    body = (
        "c = Constant <value = bool {1}> () output = If (c) <then_branch = t () => (float[n, 4] p) { p = Neg (input) },"
    )
    body += " else_branch = e () => (float[n, 4] q) { q = Identity (input) }>"
    with pytest.raises(InternalError, match="holds a subgraph"):
        convert_precision(small(body), "float16")


def test_the_pass_checks_what_it_promises() -> None:
    """A tensor of unknown type before it; half precision at an edge, or Casts that cancel, after it."""
    step = lower_precision(Conversion("float16"), 20, {})
    x, h, f = (gs.Variable(name, dtype, [4]) for name, dtype in (("x", "float32"), ("h", "float16"), ("f", "float32")))
    half_again, unknown = gs.Variable("again", "float16", [4]), gs.Variable("unknown")

    def graph(*chain: gs.Variable) -> gs.Graph:
        nodes = [gs.Node("Cast", f"to {b.name}", {"to": 1}, [a], [b]) for a, b in pairwise(chain)]
        return gs.Graph(nodes, [chain[0]], [chain[-1]])

    with pytest.raises(InternalError, match="cannot start: the type of unknown is unknown"):
        step.apply(graph(x, unknown))
    assert step.ensures(graph(x, h)) == "h is float16"
    last = gs.Variable("last", "float32", [4])
    assert step.ensures(graph(x, h, f, half_again, last)) == "the Casts to f and to again cancel"
    for tensor in (x, h, f):
        tensor.inputs.clear(), tensor.outputs.clear()
    assert step.ensures(graph(x, h, f)) is None, "rounding to half and back is no identity"


def test_a_foreign_conversion_entry_is_refused(swinir: OnnxArtifact, tmp_path: Path) -> None:
    model = onnx.load(swinir.path)
    model.metadata_props.append(onnx.StringStringEntryProto(key="agileir.conversion", value="[]"))
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(InputError, match=r"agileir\.conversion is not a JSON object"):
        read_artifact(tmp_path / "odd.onnx")
