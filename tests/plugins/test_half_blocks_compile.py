"""Kernels of half blocks compiled without a GPU: as PyTorch compiles them on Hopper, and as text for engines."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agileir_export.errors import EnvironmentProblem

from ..scripts import load_script

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver

from agileir_export.plugins.half_blocks import (
    Fused,
    norm_launch,
    norm_projection_launch,
    pack_norm_projection,
    pack_token_tail,
    pack_window_attention,
    start,
    token_tail_launch,
    window_attention_launch,
)
from agileir_export.plugins.launch import MAX_SHARED_BYTES, Launch, NoKernel
from agileir_export.plugins.ptx import compile_kernel

from .test_kernel_start import STREAM, Driver

kernel_table = load_script(Path(__file__).resolve().parents[2] / "tools" / "kernel_table.py")

NEWEST = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
SLOW = pytest.mark.slow


def window(channels: int, heads: int, window_size: int) -> Callable[[str], Launch]:
    attributes = {"window_size": window_size, "shift_size": window_size // 2, "num_heads": heads}
    return lambda dtype: window_attention_launch(channels, attributes, dtype)


def head(channels: int) -> Callable[[str], Launch]:
    return lambda dtype: norm_projection_launch(channels, 3 * channels, dtype)


def tail(channels: int, projected: bool) -> Callable[[str], Launch]:
    return lambda dtype: token_tail_launch(channels, 2 * channels, dtype, projected=projected, rectified=projected)


CASES = {
    "window-60-8": (window(60, 6, 8), "float16", 90, 0),
    "window-180-8": (window(180, 6, 8), "float16", 90, 0),
    "window-180-8-ampere": (window(180, 6, 8), "float16", 80, 0),
    "window-96-7": (window(96, 6, 7), "bfloat16", 90, 0),
    "window-60-8-float32": (window(60, 6, 8), "float32", 80, 16),
    "head-180": (head(180), "float16", 90, 0),
    "head-180-float32": (head(180), "float32", 80, 0),
    "head-448": (head(448), "float16", 80, 0),
    "tail-180": (tail(180, True), "float16", 90, 0),
    "tail-180-ampere": (tail(180, True), "float16", 80, 256),
    "tail-180-bare": (tail(180, False), "float16", 90, 0),
    "tail-60": (tail(60, True), "float16", 80, 0),
    "tail-112": (tail(112, True), "bfloat16", 90, 0),
    "tail-224": (tail(224, True), "float16", 90, 0),
    "tail-448": (tail(448, True), "float16", 80, 0),
    "norm-180": (lambda dtype: norm_launch(180, dtype), "float16", 80, 0),
}
"""By name: launch, tensor type, architecture, and bytes a thread that may be spilled by the newest compiler."""

QUICK = {"window-60-8", "head-180", "tail-60", "norm-180"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else SLOW) for name in CASES])
def test_a_half_block_assembles(name: str, tmp_path: Path) -> None:
    make, dtype, architecture, spilled = CASES[name]
    launch = make(dtype)
    try:
        ptxas = kernel_table.find_ptxas()
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    inputs = launch.kernel.arg_names.index("height")
    compiled = compile_kernel(launch, [dtype] * inputs, dtype, architecture)
    assert compiled.shared_bytes <= MAX_SHARED_BYTES
    source = tmp_path / "kernel.ptx"
    source.write_text(compiled.ptx)
    target = re.search(r"\.target (sm_\w+)", compiled.ptx)
    assert target is not None and target[1].startswith(f"sm_{architecture}")
    command = [ptxas, "-v", f"-arch={target[1]}", "-o", str(source.with_suffix(".cubin")), str(source)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers, stored = re.search(r"(\d+) registers", told), re.search(r"(\d+) bytes spill stores", told)
    assert registers is not None and stored is not None
    print(f"{name}: {registers[1]} registers, {stored[1]} bytes spilled, {compiled.shared_bytes} bytes shared")
    assert int(stored[1]) <= spilled + (0 if NEWEST else 256)


@pytest.mark.parametrize(
    ("make", "dtype", "why"),
    [
        (window(180, 6, 9), "float16", "64 tokens, got 81"),
        (window(180, 7, 8), "float16", "do not divide"),
        (window(180, 2, 8), "float16", "heads up to 64 wide"),
        (window(96, 6, 8), "float32", "1 to 64 channels"),
        (window(180, 6, 7), "float16", "1 to 96 channels"),
        (window(240, 8, 8), "bfloat16", "1 to 192 channels"),
        (head(513), "float16", "1 to 512 channels"),
        (tail(60, True), "float64", "float64"),
    ],
)
def test_what_no_half_block_was_made_for(make: Callable[[str], Launch], dtype: str, why: str) -> None:
    with pytest.raises(NoKernel, match=why):
        make(dtype)


def test_programs_cover_every_token_and_window() -> None:
    assert head(60)("float16").grid(2, 5, 13) == -(-130 // 64)
    small = window(60, 6, 4)("float16")  # four windows of 16 tokens a program
    assert small.unit == 4 and small.grid(3, 12, 12) == 3 * 3
    assert window(60, 6, 8)("float16").grid(3, 16, 24) == 18


def packed(name: str) -> tuple[Tensor, ...]:
    """Zero weights for 60 channels."""

    def linear(outputs: int, inputs: int = 60) -> tuple[Tensor, Tensor]:
        return torch.zeros(outputs, inputs, dtype=torch.float16), torch.zeros(outputs, dtype=torch.float16)

    norm = torch.ones(60, dtype=torch.float16), torch.zeros(60, dtype=torch.float16)
    if name == "head":
        return pack_norm_projection(*norm, *linear(180))
    if name == "tail":
        return pack_token_tail(linear(60), *norm, linear(120), linear(60, 120))
    return pack_window_attention(*norm, linear(180), linear(60), torch.zeros(225, 6, dtype=torch.float16), 8)


@pytest.mark.parametrize(
    ("name", "make", "images", "outputs", "sides", "programs"),
    [
        ("window", window(60, 6, 8), 1, None, [16, 24], 12),
        ("head", head(60), 1, 180, [32, 24], 12),
        ("tail", tail(60, True), 2, None, [32, 24], 12),
    ],
)
def test_a_half_block_is_started_through_tritons_launcher(
    name: str,
    make: Callable[[str], Launch],
    images: int,
    outputs: int | None,
    sides: list[int],
    programs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in = Driver()
    monkeypatch.setattr(driver, "_active", stand_in)
    image = torch.zeros(2, 16, 24, 60, dtype=torch.float16)
    launch, weights = make("float16"), packed(name)
    output = start(Fused(launch, weights), [image] * images, outputs)
    assert output.shape == (2, 16, 24, outputs or 60)
    ((kernel, binary, _),) = stand_in.loaded
    assert kernel == launch.kernel.__name__ and binary.startswith(b"\x7fELF")
    ((*grid, stream),) = [started[:4] for started in stand_in.started]
    assert (grid, stream) == ([programs, 1, 1], STREAM)
    given = stand_in.started[0][9:]
    assert all(mine is theirs for mine, theirs in zip(given[images:], weights, strict=False))
    assert list(given[images + len(weights) :][:2]) == sides
