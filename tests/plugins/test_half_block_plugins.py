"""The entries of half blocks: arguments of their kernels, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agileir_export.plugins import OPERATORS
from agileir_export.plugins.half_block_plugins import HALF_BLOCKS, WINDOW_ATTENTION, HalfBlock, epsilon_bits
from agileir_export.plugins.half_blocks import pack_window_attention
from agileir_export.plugins.launch import MAX_SHARED_BYTES, NoKernel

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("target", [80, 90])
def test_the_widest_windows_of_an_engine_stay_within_the_shared_memory_of_quick_plugins(target: int) -> None:
    """In float32, which takes most; `compile_kernel` refuses more than that."""
    from agileir_export.plugins.ptx import compile_kernel

    table, weights = (2 * 8 - 1) ** 2, (torch.empty(64), torch.empty(64))
    linears = (torch.empty(192, 64), None), (torch.empty(64, 64), None)
    packed = pack_window_attention(*weights, *linears, torch.empty(table, 2), 8)
    numbers = {"window_size": 8, "shift_size": 4, "num_heads": 2, "epsilon_bits": epsilon_bits(1e-5)}
    launch = WINDOW_ATTENTION.launch([(1, 8, 8, 64), *(tuple(each.shape) for each in packed)], numbers, "float32")
    made = compile_kernel(launch, ["float32"] * len(WINDOW_ATTENTION.inputs), "float32", target)
    assert made.shared_bytes <= MAX_SHARED_BYTES


def test_wider_float32_heads_are_no_window_of_an_engine() -> None:
    """PyTorch's launcher asks for more shared memory; a quick plugin cannot."""
    numbers = {"window_size": 8, "shift_size": 0, "num_heads": 1, "epsilon_bits": epsilon_bits(1e-5)}
    shapes = [(1, 8, 8, 64), (64,), (64,), (3, 1, 64, 64), (3, 1, 64), (1, 64, 64), (64,), (1, 15, 8, 8)]
    with pytest.raises(NoKernel, match="float32 heads up to 32 wide"):
        WINDOW_ATTENTION.launch(shapes, numbers, "float32")
    assert WINDOW_ATTENTION.launch(shapes, numbers, "float16").window_size == 8


@pytest.mark.parametrize("entry", HALF_BLOCKS, ids=lambda entry: entry.name)
def test_an_entry_has_the_arguments_of_its_kernel(entry: HalfBlock) -> None:
    from agileir_export.plugins import half_block_kernels

    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in entry.name)
    kernel = getattr(half_block_kernels, f"{name.removeprefix('_half_block_')}_kernel")
    assert entry.inputs == tuple(kernel.arg_names[: kernel.arg_names.index("height")])
    assert entry.name not in OPERATORS


def test_an_epsilon_keeps_its_bits() -> None:
    for epsilon in (1e-5, 1e-12, 1e-30, 0.5):
        assert np.int32(epsilon_bits(epsilon)).view(np.float32) == np.float32(epsilon)


@pytest.mark.parametrize(
    ("name", "shapes", "dtype", "why"),
    [
        ("HalfBlockNorm", [(1, 8, 8, 60), (60,), (60,)], "float16", r"gain must be \[64\], got \[60\]"),
        ("HalfBlockNorm", [(1, 8, 8, 60), (64,), (64,)], "int8", "the kernel takes"),
        ("HalfBlockNorm", [(8, 8, 60), (64,), (64,)], "float16", r"must be \[B, H, W, C\]"),
        ("HalfBlockNorm", [(1, 8, 8, 513), (576,), (576,)], "float16", "1 to 512 channels"),
        (
            "HalfBlockNormProjection",
            [(1, 8, 8, 60), (64,), (64,), (64, 180), (192,)],
            "float16",
            r"weight must be \[64, 192\]",
        ),
        (
            "HalfBlockTokenTail",
            [(1, 8, 8, 60), (1, 8, 8, 64), (64, 64), (64,), (64,), (64,), (64, 128), (128,), (128, 64), (64,)],
            "float16",
            "60 and 64 channels",
        ),
        (
            "HalfBlockWindowAttention",
            [(1, 8, 12, 60), (64,), (64,), (3, 6, 64, 16), (3, 6, 16), (6, 16, 64), (64,), (6, 15, 8, 8)],
            "float16",
            "multiple of window_size 8, got 12",
        ),
        (
            "HalfBlockWindowAttention",
            [(1, 8, 8, 60), (64,), (64,), (3, 6, 64, 16), (3, 6, 16), (6, 16, 64), (64,), (225, 6)],
            "float16",
            r"biases must be \[6, 15, 8, 8\]",
        ),
    ],
)
def test_what_no_entry_takes(name: str, shapes: list[tuple[int, ...]], dtype: str, why: str) -> None:
    entry = next(each for each in HALF_BLOCKS if each.name == name)
    numbers = {"window_size": 8, "shift_size": 4, "num_heads": 6, "out_channels": 180, "projected": 1, "rectified": 0}
    given = {each: numbers.get(each, epsilon_bits(1e-5)) for each in entry.attributes}
    with pytest.raises(NoKernel, match=why):
        entry.launch(shapes, given, dtype)
