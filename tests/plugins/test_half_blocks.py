"""Fused half blocks, interpreted: single blocks and small networks of every family against their own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agileir_export.models.agileir.attention import GroupAttention
from agileir_export.models.semanir.attention import KeySemanticAttention
from agileir_export.models.window_attention import WindowAttention
from agileir_export.plugins.key_semantic_dictionary.operator import key_semantic_dictionary

from ..export.networks import SHAPES
from .interpreter import Interpreter

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

TOLERANCES = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.5e-2}
WINDOW = {"window_attention_kernel": 1, "token_tail_kernel": 1}
AROUND = {"norm_projection_kernel": 1, "token_tail_kernel": 1}
GROUP = {"norm_kernel": 1, "token_tail_kernel": 1}

SLOW = pytest.mark.slow
DTYPES = pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float16", "bfloat16"))]
)


@DTYPES
@pytest.mark.parametrize(
    ("width", "heads", "window", "shift", "ratio", "windows"),
    [
        pytest.param(
            45, 3, 4, 2, 2.0, (1, 3, 3), marks=pytest.mark.slow
        ),  # four windows a program, and one that is left over
        (48, 1, 4, 0, 4.0, (2, 1, 1)),
        (60, 6, 8, 4, 2.0, (1, 2, 2)),
        (96, 3, 6, 3, 1.5, (1, 1, 2)),
        pytest.param(180, 6, 8, 0, 2.0, (1, 1, 1), marks=pytest.mark.slow),
        (96, 6, 7, 3, 2.0, (1, 1, 1)),
        (33, 33, 2, 1, 1.0, (2, 2, 3)),
    ],
)
def test_a_block_of_small_windows(
    run: Interpreter,
    dtype: str,
    width: int,
    heads: int,
    window: int,
    shift: int,
    ratio: float,
    windows: tuple[int, int, int],
) -> None:
    attention = WindowAttention(width, heads, window, shift)
    error, started = run.call("half_block_networks:block", attention, width, ratio, dtype, (), windows)
    assert started == (AROUND if dtype == "float32" and width > 64 else WINDOW)
    assert error < TOLERANCES[dtype]


@DTYPES
@pytest.mark.parametrize(("width", "window", "ratio"), [(60, 9, 2.0), (35, 10, 1.4)])
def test_a_block_of_larger_windows(run: Interpreter, dtype: str, width: int, window: int, ratio: float) -> None:
    attention = WindowAttention(width, 5, window, window // 2)
    error, started = run.call("half_block_networks:block", attention, width, ratio, dtype, (), (1, 1, 2))
    assert started == AROUND
    assert error < TOLERANCES[dtype]


@pytest.mark.parametrize(
    ("width", "heads", "shift", "dtype"),
    [(45, 3, 2, dtype) for dtype in TOLERANCES]
    + [pytest.param(96, 3, 2, dtype, marks=SLOW) for dtype in TOLERANCES]
    + [pytest.param(200, 4, 2, "float16", marks=SLOW), pytest.param(448, 8, 0, "bfloat16", marks=SLOW)],
)
def test_a_block_with_a_dictionary(run: Interpreter, dtype: str, width: int, heads: int, shift: int) -> None:
    features = torch.randn(1, 4, 8, width, generator=torch.Generator().manual_seed(5))
    dictionary = key_semantic_dictionary(features, 4, shift, 6)
    attention = KeySemanticAttention(width, heads, 4, shift)
    error, started = run.call("half_block_networks:block", attention, width, 2.0, dtype, (dictionary,), (1, 1, 2))
    assert started == AROUND
    assert error < TOLERANCES[dtype]


@DTYPES
@pytest.mark.parametrize(("width", "groups", "batch_norm"), [(60, 6, True), (45, 3, False)])
def test_a_block_of_groups(run: Interpreter, dtype: str, width: int, groups: int, batch_norm: bool) -> None:
    attention = GroupAttention(width, groups, 8, 4, 2, batch_norm=batch_norm)
    error, started = run.call("half_block_networks:block", attention, width, 2.0, dtype, (), (1, 1, 2))
    assert started == GROUP
    assert error < TOLERANCES[dtype]


def blocks_of(parameters: dict[str, Any]) -> int:
    """Blocks of a network: of a U-shaped one, encoders, decoders and the last stage."""
    depths = parameters["depths"]
    return sum(depths) + (sum(depths[:-1]) + parameters["final_depth"] if "final_depth" in parameters else 0)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_network_agrees_with_its_layers(run: Interpreter, kind: str, dtype: str) -> None:
    """Every block runs fused; in half precision the result is no further from float32 than that of the layers."""
    fused, stock, started = run.call("half_block_networks:network", dict(SHAPES[kind]), dtype, 13)
    assert started["token_tail_kernel"] == blocks_of(SHAPES[kind])
    assert sum(started.values()) == 2 * blocks_of(SHAPES[kind])
    assert fused < (5e-6 if dtype == "float32" else max(2 * stock, 1e-3))


@pytest.mark.parametrize(("dtype", "relative"), [("float32", 2e-6), ("float16", 6e-6)])
def test_the_gelu_is_the_exact_one(run: Interpreter, dtype: str, relative: float) -> None:
    """To the rounding of float32; for 16 bits the relative error is far below their own, out to the smallest values."""
    values = torch.cat([torch.linspace(-30, 30, 4092), torch.tensor([0.0, -0.0, 65504.0, -65504.0])])
    result, exact = run.call("half_block_networks:gelu_apart", values, dtype)
    near = values.abs() < (5.5 if dtype == "float16" else 2)
    assert ((result - exact).abs() / exact.abs().clamp_min(1e-30))[near].max() < relative
    torch.testing.assert_close(result.double(), exact, rtol=relative, atol=6e-7)
