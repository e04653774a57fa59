"""The rescale on graphs small enough to follow by eye: what may carry a factor, and what constants become."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from agileir_export.engines import create_session
from agileir_export.errors import InputError, Unsupported
from agileir_export.export.artifact import BLOCKS_KEY, RESCALE_KEY
from agileir_export.export.rescale import FLOAT16_MAX, rescale
from agileir_export.export.streams import find_streams, stays_float32

HEADER = '<ir_version: 9, opset_import: ["": 20]>'
WEIGHTS = {"w": (4, 4), "v": (4, 4), "b": (4,), "gain": (4,), "shift": (4,), "c": (1,)}

PRE_NORM = """
  x = LayerNormalization (image, gain, shift)
  normed = LayerNormalization <epsilon = 0.001> (x, gain, shift)
  hidden = MatMul (normed, w)
  active = Gelu (hidden)
  written = MatMul (active, v)
  branch = Add (written, b)
  stream = Add (x, branch)
  left = LayerNormalization (stream, gain, shift)
  y = MatMul (left, v)"""


def graph(body: str, blocks: tuple[str, ...] = ("stream",)) -> onnx.ModelProto:
    """A model of float ``[n, 4]`` to the same, with every weight that the body names, and the blocks it names."""
    model = onnx.parser.parse_model(f"{HEADER} g (float[n, 4] image) => (float[n, 4] y) {{{body}\n}}")
    used = {name for node in model.graph.node for name in node.input}
    random = np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        if name in used:
            values = random.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.helper.set_model_props(model, {BLOCKS_KEY: json.dumps(blocks)})
    return model


def run(model: onnx.ModelProto, seed: int = 1) -> Any:
    images = np.random.default_rng(seed).standard_normal((7, 4)).astype(np.float32)
    return create_session(model.SerializeToString()).run(None, {"image": images})[0]


def weights(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def exponents(model: onnx.ModelProto) -> Any:
    return json.loads({entry.key: entry.value for entry in model.metadata_props}[RESCALE_KEY])


# ---- how much ----


@pytest.mark.parametrize(
    ("amax", "k"), [(0.0, 0), (8192.0, 0), (8192.001, 1), (16384.0, 1), (16400.0, 2), (5e5, 6), (1e6, 7)]
)
def test_the_smallest_power_that_suffices(amax: float, k: int) -> None:
    _, report = rescale(graph(PRE_NORM), {"branch": amax})
    (body,) = report.bodies
    assert body.k == k
    assert amax / 2**body.k <= 8192 and (k == 0 or amax / 2 ** (k - 1) > 8192)


def test_nothing_to_do_returns_the_same_object() -> None:
    model = graph(PRE_NORM)
    same, report = rescale(model, {"stream": 8192.0})
    assert same is model and not report.changed


# ---- what changes ----


def test_a_pre_norm_body() -> None:
    model = graph(PRE_NORM)
    before = weights(model)
    changed, report = rescale(model, {"stream": 5e5, "branch": 1e5, "hidden": 100.0})
    (body,) = report.bodies
    assert (body.name, body.widest, body.amax, body.tensors) == ("stream", "stream", 5e5, 4)
    assert report.notes() == ["The stream of stream reaches 5e+05 and was divided by 2^6."]
    assert exponents(changed) == {"stream": 6}
    after = weights(changed)
    for name in ("w", "v", "gain", "shift"):  # read elsewhere, as they are
        assert np.array_equal(after[name], before[name])
    for name in ("v", "gain", "shift"):  # a copy for who writes the stream
        assert np.array_equal(after[f"{name}*2^-6"], before[name] / 64)
    assert np.array_equal(after["b"], before["b"] / 64)
    epsilons = [
        node.attribute[0].f for node in changed.graph.node if node.op_type == "LayerNormalization" if node.attribute
    ]
    small, default = np.float32(0.001) / 4096, np.float32(1e-5) / 4096
    assert epsilons == [small, default]
    assert weights(model).keys() == before.keys()  # the model given is not changed
    assert np.array_equal(run(changed), run(model))


def test_streams_of_different_factors_meet_in_a_linear_map() -> None:
    model = graph(
        """
      first = MatMul (image, w)
      stream = Relu (first)
      wide = MatMul (stream, v)
      other = Add (wide, b)
      normed = LayerNormalization (other, gain)
      y = Identity (normed)""",
        ("stream", "other"),
    )
    before = weights(model)
    changed, report = rescale(model, {"stream": 2.0**16, "other": 2.0**20})
    assert [(body.name, body.k) for body in report.bodies] == [("stream", 3), ("other", 7)]
    after = weights(changed)
    assert np.array_equal(after["w"], before["w"] / 8)
    assert np.array_equal(after["v"], before["v"] / 16)
    assert np.array_equal(after["b"], before["b"] / 128)
    assert np.array_equal(after["gain"], before["gain"])
    assert np.array_equal(run(changed), run(model))


@pytest.mark.parametrize(
    "body",
    [
        "stream = Concat <axis = 0> (x, x)  y0 = LayerNormalization (stream, gain)  y = Identity (y0)",
        "stream = Mul (c, x)  y = MatMul (stream, v)",
        "stream = Div (x, c)  y = MatMul (stream, v)",
        "stream = Sub (b, x)  y = MatMul (stream, v)",
        "stream = Max (x, b)  y = Gemm (stream, v, b)",
        "z = LeakyRelu <alpha = 0.2> (x)  stream = Transpose (z)  t = Transpose (stream)  y = MatMul (t, v)",
        "stream = Add (x, b)  post = LayerNormalization (stream, gain)  q = MatMul (post, v)  y = Tanh (q)",
        "t = Transpose (x)  stream = MatMul (v, t)  u = Transpose (stream)  y = LayerNormalization (u, gain)",
    ],
)
def test_nodes_that_let_a_factor_through(body: str) -> None:
    model = graph(f"x = MatMul (image, w) {body}")
    changed, report = rescale(model, {"stream": 1e6})
    assert report.changed and exponents(changed) == {"stream": 7}
    assert np.array_equal(run(changed), run(model))


def test_a_second_rescale_adds_up() -> None:
    once, _ = rescale(graph(PRE_NORM), {"stream": 2.0**15})
    twice, _ = rescale(once, {"stream": 2.0**16})
    assert exponents(once) == {"stream": 2} and exponents(twice) == {"stream": 5}
    assert np.array_equal(run(twice), run(graph(PRE_NORM)))


# ---- what cannot be done ----


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "x = MatMul (image, w) stream = Add (x, b) g = Gelu (stream) y = MatMul (g, v)",
            r"Gelu \(-> g\) is not positively",
        ),
        (
            "x = MatMul (image, w) stream = Mul (x, x) y = MatMul (stream, v)",
            r"Mul \(-> stream\) multiplies or divides",
        ),
        ("stream = Add (image, b) y = MatMul (stream, v)", "image is the input of the graph"),
        ("x = MatMul (image, w) stream = Sigmoid (x) y = Add (stream, x)", "Sigmoid"),
        ("x = MatMul (image, w) stream = Mul (x, c) y = Add (stream, b)", "y is the output of the graph"),
    ],
)
def test_what_is_not_homogeneous_is_refused(body: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason) as caught:
        rescale(graph(body), {"stream": 65505.0})
    assert "65504" in caught.value.what and "--bf16" in caught.value.fix


def test_logits_past_the_range_are_refused() -> None:
    body = "q = MatMul (image, w) k = Transpose (q) logits = MatMul (q, k) p = Softmax (logits) y = MatMul (p, q)"
    model = graph(body, ())
    with pytest.raises(Unsupported, match=r"logits reaches 7e\+04 .* MatMul \(-> logits\) multiplies two computed"):
        rescale(model, {"logits": 7e4})


def test_what_float16_holds_is_only_reported() -> None:
    model = graph(PRE_NORM)
    same, report = rescale(model, {"hidden": FLOAT16_MAX})
    assert same is model
    (left,) = report.unscaled
    assert report.notes() == [f"hidden reaches 6.55e+04 of float16's 65504 and cannot be divided: {left.reason}."]
    assert (left.tensor, left.amax) == ("hidden", FLOAT16_MAX) and "Gelu" in left.reason


def test_islands_of_float32_may_be_large() -> None:
    model = graph("a = MatMul (image, w) f = Cast <to = 1> (a) g = Exp (f) s = Add (g, g) y = CastLike (s, a)", ())
    assert stays_float32(model.graph) == {"f", "g", "s"}
    same, _ = rescale(model, {"g": 1e9, "s": 1e9})
    assert same is model


def test_a_range_that_is_not_finite() -> None:
    with pytest.raises(InputError, match="stream is inf"):
        rescale(graph(PRE_NORM), {"stream": math.inf})


def test_an_epsilon_that_would_vanish() -> None:
    with pytest.raises(Unsupported, match="epsilon of LayerNormalization"):
        rescale(graph(PRE_NORM), {"stream": 2.0**100})


def test_weights_in_half_precision() -> None:
    model = graph(PRE_NORM)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "b"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float16), "b"))
    with pytest.raises(Unsupported, match="b is float16"):
        rescale(model, {"stream": 1e6})


# ---- streams ----


def test_streams_are_told_apart() -> None:
    streams = {stream.tensors: stream.fixed_by for stream in find_streams(graph(PRE_NORM).graph)}
    assert streams[("x", "written", "branch", "stream")] == ""
    assert "Gelu" in streams[("hidden",)] and "Gelu" in streams[("active",)]
    assert "output" in streams[("y",)] and "input" in streams[("image",)]
    assert streams[("left",)] == ""


def test_unknown_operators_and_computed_weights_fix_a_factor() -> None:
    model = graph(
        """
      x = MatMul (image, w)
      s = Shape (x)
      t = Reshape (x, s)
      gains = ReduceMean <keepdims = 0> (t)
      normed = LayerNormalization (t, gains)
      y = Identity (normed)"""
    )
    (reason,) = {stream.fixed_by for stream in find_streams(model.graph) if "t" in stream.tensors}
    assert "ReduceMean" in reason
