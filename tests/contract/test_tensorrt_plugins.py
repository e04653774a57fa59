"""The plugins under the real TensorRT bindings, and what is said where they cannot be registered."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import numpy as np
import pytest

from agileir_export.errors import EnvironmentProblem
from agileir_export.plugins.tensorrt_plugins import register_tensorrt

from .lean_tensorrt import HALF_BLOCKS, NEWEST, OPERATORS, VERSIONS, answer, make_or_skip

BINDINGS_TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}


def lives(version: str, *operators: str) -> dict[str, Any]:
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
    told: dict[str, Any] = answer("life_cycle.py", *operators, environment=make_or_skip(version).variables())
    assert told["version"] == version
    return told


def assert_lived(life: dict[str, Any]) -> None:
    assert life["output_shape"] == life["torch_output"]
    is_set = life["operator"] == "KeySemanticDictionary"
    assert life["output_type"] == ("INT32" if is_set else BINDINGS_TYPES[life["dtype"]])
    # One combination for each precision; a dictionary is int32 in all of them.
    assert [combination[0] for combination in life["combinations"]] == ["FLOAT", "HALF", "BF16"]
    assert life["scratch_shape"] == life["torch_scratch"]
    assert bool(life["scratch_shape"]) == (life["operator"] == "GroupShiftedWindowAttention")
    for first, *rest in life["combinations"]:
        if life["scratch_shape"]:
            assert rest.pop() == "FLOAT"
        assert set(rest) <= {first, "INT32"}
        assert ("INT32" in rest) == (life["operator"] in ("KeySemanticDictionary", "KeySemanticAttention"))
    assert life["tactics"] == list(range(1, life["torch_tactics"] + 1))
    assert life["grid"] == [life["torch_grid"], 1, 1]
    assert life["block"] == [life["torch_threads"], 1, 1]
    assert 0 <= life["shared"] <= 48 * 1024
    assert life["extra"] == life["torch_sides"]
    batch, height, width = life["image"]
    token_by_token = life["operator"].startswith("HalfBlock") and life["operator"] != "HalfBlockWindowAttention"
    assert life["extra"] == ([batch * height, width] if token_by_token else [height, width])
    assert life["entry"] == ["u64"] * life["inputs"] + ["u32", "u32", "u64"] + ["u64"] * bool(life["scratch_shape"])
    assert life["declares_kernel"]
    assert life["fields"] == life["onnx_attributes"]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_plugin_lives(version: str) -> None:
    told = lives(version, "shifted_window_attention")
    assert set(told["registered"]) == {*OPERATORS, *HALF_BLOCKS}
    (life,) = told["lives"]
    assert life["dynamic"]
    assert_lived(life)
    assert told["numpy"] == np.__version__
    nothing = dict.fromkeys([*OPERATORS, *HALF_BLOCKS], "")
    assert told["why_not"] == nothing, "attributes reach every TensorRT whichever NumPy is installed"
    trapped = version.startswith("10.") and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4)
    assert ("only 0-dimensional arrays" in told["control"]) == trapped, "a scalar shows whether the trap is there"


def test_half_blocks_of_free_size_live() -> None:
    """Those that compile fastest."""
    told = lives(NEWEST, *HALF_BLOCKS[:2])
    assert [life["operator"] for life in told["lives"]] == HALF_BLOCKS[:2]
    for life in told["lives"]:
        assert life["dynamic"]
        assert_lived(life)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_every_plugin_lives(version: str) -> None:
    told = lives(version)
    every = {*OPERATORS, *HALF_BLOCKS}
    assert set(told["registered"]) == every
    assert {life["operator"] for life in told["lives"]} == every
    assert len(told["lives"]) == 4 * len(every)
    for life in told["lives"]:
        assert_lived(life)


def test_a_missing_tensorrt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EnvironmentProblem, match="TensorRT cannot be imported") as caught:
        register_tensorrt()
    assert "pip install tensorrt" in caught.value.fix


def test_an_old_tensorrt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.9.0.34"))
    with pytest.raises(EnvironmentProblem, match=r"TensorRT 10\.9\.0\.34 is too old.*10\.12"):
        register_tensorrt()


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="11.4.0.106"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="Triton is not installed"):
        register_tensorrt()
