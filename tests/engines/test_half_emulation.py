"""Half precision on the CPU: every tensor is the half-precision number it should be, infinities and NaN included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from agileir_export.engines import OnnxRuntimeRunner, faithful_session
from agileir_export.engines.onnxruntime.half_emulation import computes_in_half, emulate_half
from agileir_export.errors import OnnxFileError, Unsupported

from ..export import networks
from ..export.written import half_file

TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
VALUES = np.array(
    [0, 1, -1, 1 / 3, 1e-3, 2049.5, 40000, -50000, 65519, 65520, 3e-8, 2e-8, -7e-6, 3e38, np.inf, -np.inf, np.nan],
    np.float32,
)


def model(body: str, precision: str, functions: str = "") -> onnx.ModelProto:
    """A graph of float32 ``x`` and ``y`` [n], and ``x`` cast to ``h``; `body` makes ``r``, which is cast to ``y``."""
    half = {"float16": 10, "bfloat16": 16}[precision]
    domain = ', "demo": 1' if functions else ""
    text = f"""<ir_version: 10, opset_import: ["": 22{domain}]>
      g (float[n] x) => (float[n] y) {{
        h = Cast <to = {half}> (x)
        {body}
        y = Cast <to = 1> (r)
      }}
      {functions}"""
    return onnx.parser.parse_model(text)


def run(given: onnx.ModelProto, x: np.ndarray[Any, Any] = VALUES) -> np.ndarray[Any, Any]:
    return faithful_session(given).run(None, {"x": x})[0]


def numpy_half(precision: str, x: np.ndarray[Any, Any] = VALUES) -> np.ndarray[Any, Any]:
    with np.errstate(all="ignore"):
        return x.astype(TYPES[precision])


def bits(value: float) -> int:
    """A float16 as ONNX text writes it."""
    return int(np.float16(value).view(np.uint16))


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("r = Identity (h)", lambda h: h),
        ("s = Add (h, h)\nr = Sub (s, h)", lambda h: (h + h) - h),
        ("s = Mul (h, h)\nr = Sqrt (s)", lambda h: np.sqrt(h * h)),
        ("s = Div (h, h)\nr = Add (s, h)", lambda h: h / h + h),
        ("s = Add (h, h)\nt = Neg (s)\nr = Relu (t)", lambda h: np.maximum(-(h + h), h.dtype.type(0))),
    ],
    ids=["round", "add", "square", "divide", "exact"],
)
def test_every_step_is_rounded_as_numpy_rounds_it(precision: str, body: str, expected: Any) -> None:
    """40000 + 40000 is infinite in float16, and infinity less 40000 stays so: nothing is merged across steps."""
    with np.errstate(all="ignore"):
        wanted = expected(numpy_half(precision)).astype(np.float32)
    found = run(model(body, precision))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("precision", TYPES)
def test_products_are_summed_in_float32_and_rounded_once(precision: str) -> None:
    """2048 + 1 + 1 + ... stays at 2048 when every sum is rounded to float16; tensor cores give the whole sum."""
    ones = "one = Constant <value_float = 1.0> ()\nlike = CastLike (one, h)"
    body = f"""{ones}
        row_shape = Constant <value_ints = [1, -1]> ()
        row = Reshape (h, row_shape)
        column_shape = Constant <value_ints = [-1, 1]> ()
        column = Reshape (h, column_shape)
        ones_column = Div (column, column)
        sum = MatMul (row, ones_column)
        flat = Constant <value_ints = [-1]> ()
        total = Reshape (sum, flat)
        zero = Sub (h, h)
        spread = Add (zero, total)
        r = Mul (spread, like)"""
    given = np.array([2048] + [1] * 999, np.float32)
    found = run(model(body, precision), given)
    assert set(found.tolist()) == {float(np.float32(3047).astype(TYPES[precision]))}


@pytest.mark.parametrize("precision", TYPES)
def test_what_a_function_body_keeps_in_float32_stays_there(precision: str) -> None:
    """Inside: float32 sums, so that 40000 + 40000 - 40000 is 40000; outside the same sums overflow."""
    function = """<domain: "demo", opset_import: ["": 22]>
      twice_less (a) => (b) {
        f = Cast <to = 1> (a)
        s = Add (f, f)
        d = Sub (s, f)
        b = CastLike (d, a)
      }"""
    h = numpy_half(precision)
    found = run(model("r = demo.twice_less (h)", precision, function))
    finite = np.isfinite(h.astype(np.float32)) & (np.abs(h.astype(np.float32)) < 1e38)
    np.testing.assert_array_equal(found[finite], h.astype(np.float32)[finite])
    assert finite[6]
    assert (precision == "float16") == np.isinf(run(model("s = Add (h, h)\nr = Sub (s, h)", precision))[6])


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize(
    "operation",
    [
        "Softmax <axis = -1> (h)",
        "Gelu (h)",
        "Relu (h)",
        "LeakyRelu <alpha = 0.1> (h)",
        "Sigmoid (h)",
        "Tanh (h)",
        "Erf (h)",
        "Exp (h)",
        "LayerNormalization (h, h, h)",
    ],
    ids=lambda text: text.split()[0],
)
def test_no_kernel_swallows_a_nan(precision: str, operation: str) -> None:
    given = np.array([1, np.nan, 2], np.float32)
    if operation == "Erf (h)" and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24):
        pytest.skip(f"the Erf of ONNX Runtime {onnxruntime.__version__} itself makes 1 of a NaN")
    assert np.isnan(run(model(f"r = {operation}", precision), given)[1])


def test_constants_and_typed_attributes() -> None:
    body = f"""
        c = Constant <value = float16[1] {{{bits(3)}}}> ()
        n = Shape (h)
        z = ConstantOfShape <value = float16[1] {{{bits(2)}}}> (n)
        s = Mul (h, c)
        r = Add (s, z)"""
    given = model(body, "float16")
    before = given.SerializeToString()
    assert computes_in_half(given)
    emulated = emulate_half(given)
    assert given.SerializeToString() == before
    h = numpy_half("float16")
    with np.errstate(all="ignore"):
        wanted = (h * np.float16(3) + np.float16(2)).astype(np.float32)
    np.testing.assert_array_equal(run(given), wanted)
    names = {name for node in emulated.graph.node for name in node.output}
    assert {"h", "c", "z", "s", "r", "y"} <= names


def test_quantisation_with_half_precision_scales() -> None:
    body = f"""
        scale = Constant <value = float16 {{{bits(0.1)}}}> ()
        zero = Constant <value = int8 {{0}}> ()
        q = QuantizeLinear (h, scale, zero)
        r = DequantizeLinear (q, scale, zero)"""
    x = np.array([0.04, 0.06, 1.234, -9, 100], np.float32)
    scale = np.float32(np.float16(0.1))
    wanted = np.clip(np.rint(x.astype(np.float16).astype(np.float32) / scale), -128, 127) * scale
    np.testing.assert_array_equal(run(model(body, "float16"), x), wanted.astype(np.float16).astype(np.float32))


def test_a_float32_model_is_run_as_it_is() -> None:
    given = model("r = Cast <to = 1> (x)", "float16")
    del given.graph.node[0]
    assert not computes_in_half(given)


def test_subgraphs_are_refused() -> None:
    body = "c = Constant <value = bool {1}> ()\nr = If (c) <then_branch = t () => (p) { p = Neg (h) },"
    body += " else_branch = e () => (q) { q = Identity (h) }>"
    with pytest.raises(Unsupported, match="If"):
        faithful_session(model(body, "float16"))


# ---- a whole network ----


@pytest.mark.parametrize(("precision", "finite"), [("float16", False), ("bfloat16", True)])
def test_a_stream_past_65504_is_not_hidden(precision: str, finite: bool, folder: Path, tmp_path: Path) -> None:
    """The first convolution times 1e6, which the normalisation after it undoes: float32 and bfloat16 take it."""
    artifact = networks.exported(folder, "swinir-light")
    graph = onnx.load(artifact.path)
    for tensor in graph.graph.initializer:
        if tensor.name == "conv_first.weight":
            large = onnx.numpy_helper.to_array(tensor) * np.float32(3e4)
            tensor.CopyFrom(onnx.numpy_helper.from_array(large, tensor.name))
    path = tmp_path / "large.onnx"
    onnx.save(graph, path)
    images = networks.images(1, 3, 8, 8) * 50
    assert np.isfinite(OnnxRuntimeRunner(path).run(images)).all()
    half = half_file(OnnxRuntimeRunner(path).artifact, tmp_path / "half.onnx", precision)
    assert bool(np.isfinite(OnnxRuntimeRunner(half).run(images)).all()) == finite


def test_a_damaged_half_file_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    half = half_file(networks.exported(folder, "swinir-light"), tmp_path / "half.onnx", "float16")
    graph = onnx.load(half.path)
    graph.graph.node[1].op_type = "Imaginary"
    onnx.save(graph, half.path)
    with pytest.raises(OnnxFileError, match="Imaginary") as caught:
        OnnxRuntimeRunner(half.path)
    assert str(half.path) in caught.value.what
