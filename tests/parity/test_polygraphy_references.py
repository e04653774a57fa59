"""The references that polygraphy gets against loops in double precision, and in its own runner against the bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from polygraphy.backend.onnx import ExtractSubgraph, GsFromOnnx, OnnxFromPath
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.backend.pluginref import PluginRefRunner
from polygraphy.common import TensorMetadata
from polygraphy.exception import PolygraphyException

import agileir_export.parity.polygraphy.references  # noqa: F401  (polygraphy gets them)
from agileir_export.plugins import OPERATORS

from ..export import networks
from ..plugins import naive
from ..plugins.cases import (
    GROUP_CASES,
    HEADS_CASES,
    RANDOM_GROUP_CASES,
    RANDOM_HEADS_CASES,
    Group,
    Heads,
    case_id,
    group_tensors,
    heads_tensors,
    normal,
    numpy,
    random_dictionary,
    seeded,
)

Array = np.ndarray[Any, Any]
EXACT = 1e-12
"""Both sides compute in float64; only the order of the sums differs."""

GROUPS = [*GROUP_CASES[::3], *RANDOM_GROUP_CASES[:3]]
HEADS = [*HEADS_CASES[::3], *RANDOM_HEADS_CASES[:3]]


def reference(name: str) -> Any:
    return OPERATORS[name].reference()


def assert_equal(actual: Array, expected: Array) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("case", GROUPS, ids=case_id)
def test_group_attention(case: Group) -> None:
    tensors = numpy(*group_tensors(case))
    expected = naive.group_shifted_window_attention(*tensors, case.window, case.shift)
    assert_equal(reference("GroupShiftedWindowAttention")(*tensors, case.window, case.shift), expected)


@pytest.mark.parametrize("case", HEADS, ids=case_id)
def test_attention_with_and_without_a_dictionary(case: Heads) -> None:
    qkv, table = numpy(*heads_tensors(case))
    arguments = (case.window, case.shift, case.heads)
    plain = reference("ShiftedWindowAttention")(qkv, table, *arguments)
    assert_equal(plain, naive.shifted_window_attention(qkv, table, *arguments))
    dictionary = random_dictionary(case).numpy()
    chosen = reference("KeySemanticAttention")(qkv, dictionary, table, *arguments)
    assert_equal(chosen, naive.key_semantic_attention(qkv, dictionary, table, *arguments))
    assert case.window == 1 or not np.allclose(chosen, plain)


@pytest.mark.parametrize("top_k", [1, 5, 100])
@pytest.mark.parametrize("case", HEADS, ids=case_id)
def test_dictionary(case: Heads, top_k: int) -> None:
    """Features in whole numbers: dot products are exact, and many of them tie."""
    shape = (case.batch, case.rows * case.window, case.columns * case.window, 3)
    (features,) = numpy(normal(seeded(), *shape).mul(1.5).round())
    expected = naive.key_semantic_dictionary(features, case.window, case.shift, top_k)
    actual = reference("KeySemanticDictionary")(features, case.window, case.shift, top_k)
    assert actual.dtype == np.int32
    assert np.array_equal(actual, expected)


def test_the_type_of_the_image_is_kept() -> None:
    for kind in (np.float32, np.float16):
        qkv, table = (array.astype(kind) for array in numpy(*heads_tensors(HEADS_CASES[0])))
        assert reference("ShiftedWindowAttention")(qkv, table, 4, 1, 2).dtype == kind


@pytest.mark.parametrize(("side", "shift"), [(7, 0), (8, 4), (8, -1)])
def test_what_is_no_grid_of_windows_is_refused(side: int, shift: int) -> None:
    with pytest.raises(ValueError, match="not whole windows of 4"):
        reference("KeySemanticDictionary")(np.zeros((1, side, 8, 3)), 4, shift, 3)


def one_node(path: Path, number: int, shape: tuple[int, ...]) -> tuple[onnx.ModelProto, str, str]:
    """The `number`-th of our nodes of a file, cut out with polygraphy; the names of its image and its output."""
    model = OnnxFromPath(str(path))()
    node = [node for node in model.graph.node if node.domain == "agileir"][number]
    weights = {tensor.name for tensor in model.graph.initializer}
    given = [name for name in node.input if name not in weights]
    assert len(given) == 1
    metadata = TensorMetadata().add(given[0], np.float32, shape)
    cut = ExtractSubgraph(model, metadata, TensorMetadata().add(node.output[0], np.float32, None))()
    return cut, given[0], node.output[0]


@pytest.mark.parametrize("number", [0, 1], ids=["straight", "shifted"])
@pytest.mark.parametrize(("kind", "channels"), [("agileir", 12), ("swinir-light", 36)])
def test_polygraphys_runner_agrees_with_the_function_body(kind: str, channels: int, number: int, folder: Path) -> None:
    artifact = networks.exported(folder, kind)
    model, given, made = one_node(artifact.path, number, (2, 8, 12, channels))
    feed = {given: normal(seeded(number), 2, 8, 12, channels).numpy()}
    session = SessionFromOnnx(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with OnnxrtRunner(session) as runtime, PluginRefRunner(GsFromOnnx(model)) as reference:
        expected, actual = runtime.infer(feed)[made].copy(), reference.infer(feed)[made].copy()
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)  # float32 against float64


def test_polygraphys_runner_refuses_without_a_traceback(folder: Path) -> None:
    artifact = networks.exported(folder, "swinir-light")
    model, given, _ = one_node(artifact.path, 0, (1, 7, 8, 36))
    with (
        PluginRefRunner(GsFromOnnx(model)) as reference,
        pytest.raises(PolygraphyException, match="ShiftedWindowAttention: 7x8 pixels"),
    ):
        reference.infer({given: np.zeros((1, 7, 8, 36), np.float32)})
