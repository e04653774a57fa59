"""Releases of ONNX Runtime that multiply INT8 matrices wrong: known by release and processor, computed in float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agileir_export.engines import create_session
from agileir_export.engines.onnxruntime import integers, runner
from agileir_export.engines.onnxruntime.runner import OnnxRuntimeRunner
from agileir_export.export import OnnxArtifact

from ..export.written import quantised


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A processor with AMX."""
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor : 0\nflags : fpu avx512_vnni amx_bf16 amx_tile amx_int8\n")
    monkeypatch.setattr(integers, "CPU_FACTS", facts)
    integers._has_amx.cache_clear()
    yield
    integers._has_amx.cache_clear()


def test_the_releases_that_are_wrong(amx: None) -> None:
    wrong = {
        release: integers.wrong_products(release) for release in ("1.20.1", "1.21.0", "1.23.2", "1.24.4", "1.25.0")
    }
    assert wrong == {"1.20.1": False, "1.21.0": True, "1.23.2": True, "1.24.4": True, "1.25.0": False}
    assert not integers.wrong_products("1.32.0") and not integers.wrong_products("2.0.0")


@pytest.mark.parametrize("facts", ["flags : avx2 amx_bf16 amx_tile\n", "model name : amx_int8\n", None])
def test_other_processors(facts: str | None, amx: None) -> None:
    integers.CPU_FACTS.write_text(facts) if facts is not None else integers.CPU_FACTS.unlink()
    assert not integers.wrong_products("1.23.2")


@pytest.mark.parametrize(("rows", "width", "columns"), [(64, 24, 72), (64, 60, 180), (256, 180, 540), (35, 20, 12)])
def test_a_quantised_product_is_right_here(rows: int, width: int, columns: int) -> None:
    """Whatever release and processor this is: int8 by int8, summed in float64 for comparison."""
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (width, columns)).astype(np.int8)
    scales = (random.random(columns) / 100 + 0.001).astype(np.float32)
    given = random.integers(-127, 128, (1, rows, width)).astype(np.float32) / 64
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    constants = {"s": np.float32(1 / 64), "z": np.int8(0), "w": weights, "ws": scales, "wz": np.zeros(columns, np.int8)}
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "rows", width])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "rows", columns])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", [image], [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    wanted = given.astype(np.float64) @ (weights * scales.astype(np.float64))
    for threads in (1, 2, None):
        (found,) = create_session(model.SerializeToString(), threads).run(None, {"x": given})
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_where_they_are_wrong_a_file_is_computed_in_float_and_says_so(
    swinir: OnnxArtifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key, value = integers.IN_FLOAT
    for wrong in (False, True):
        monkeypatch.setattr(runner, "wrong_products", lambda version, wrong=wrong: wrong)
        caplog.clear()
        opened = OnnxRuntimeRunner(quantised(swinir))
        assert (opened.describe().get("int8") == "in float32") == wrong
        assert ("AMX" in caplog.text) == wrong
        if wrong:
            assert opened.session.get_session_options().get_session_config_entry(key) == value
    caplog.clear()
    assert "int8" not in OnnxRuntimeRunner(swinir).describe() and not caplog.text
