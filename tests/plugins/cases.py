"""Arguments of the operators that several test files draw from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from agileir_export.plugins import OPERATORS

from . import naive

group_attention = OPERATORS["GroupShiftedWindowAttention"].torch_operator()
attention = OPERATORS["ShiftedWindowAttention"].torch_operator()
make_dictionary = OPERATORS["KeySemanticDictionary"].torch_operator()
key_attention = OPERATORS["KeySemanticAttention"].torch_operator()

HALF = [torch.float16, torch.bfloat16]
HALF_IDS = ["float16", "bfloat16"]


class Group(NamedTuple):
    """Shape of a group_shifted_window_attention call; `rows` and `columns` count windows."""

    batch: int
    rows: int
    columns: int
    window: int
    shift: int
    groups: int
    width: int
    key: int
    kernel: tuple[int, int]


class Heads(NamedTuple):
    """Shape of a (key semantic) window attention call; `rows` and `columns` count windows."""

    batch: int
    rows: int
    columns: int
    window: int
    shift: int
    heads: int
    width: int


def normal(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, drawn in float32 and then rounded to `dtype`."""
    return torch.randn(*shape, generator=generator).to(dtype)


def integers(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=generator).float()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def group_tensors(case: Group, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Arguments scaled so that the logits spread by about one and every term moves the result."""
    draw = partial(normal, seeded(seed), dtype=dtype)
    kh, kw = case.kernel
    rows = 2 * case.key + case.width
    height, width = case.rows * case.window, case.columns * case.window
    return (
        draw(case.batch, height, width, case.groups * case.width),
        draw(case.groups, rows, case.width) * case.width**-0.5,
        draw(case.groups, rows) * 0.5,
        draw(case.groups, case.key, kh, kw) * (kh * kw) ** -0.5,
        draw(case.groups, case.key) * 0.5,
        draw((2 * case.window - 1) ** 2, case.groups),
    )


def heads_tensors(case: Heads, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    draw = partial(normal, seeded(seed), dtype=dtype)
    height, width = case.rows * case.window, case.columns * case.window
    return (
        draw(case.batch, height, width, 3 * case.heads * case.width),
        draw((2 * case.window - 1) ** 2, case.heads),
    )


def random_dictionary(case: Heads, seed: int = 0) -> Tensor:
    """Sets of any size from 1 to N that no top-k would choose."""
    rng = np.random.default_rng(seed)
    tokens = case.window**2
    return torch.from_numpy(
        np.stack(
            [
                naive.pack(
                    [rng.permutation(tokens)[: rng.integers(1, tokens + 1)].tolist() for _ in range(tokens)],
                    tokens,
                )
                for _ in range(case.batch * case.rows * case.columns)
            ]
        )
    )


def numpy(*tensors: Tensor) -> list[np.ndarray[Any, Any]]:
    return [t.double().numpy() if t.is_floating_point() else t.numpy() for t in tensors]


def assert_close(actual: Tensor, expected: np.ndarray[Any, Any] | Tensor, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


def bits(dictionary: Tensor, tokens: int) -> Tensor:
    """Packed words [..., words] to booleans [..., 16 * words]; a bit above the 15th is an error."""
    assert int(dictionary.min()) >= 0
    assert int(dictionary.max()) < 2**16
    spread = ((dictionary[..., None] >> torch.arange(16)) & 1).flatten(-2).bool()
    assert not spread[..., tokens:].any()
    return spread[..., :tokens]


# Also: every shift of a window, one window with a shift, N = 49 (no multiple of 16), N = 1,
# filters wider than the window, as many groups as channels.
GROUP_CASES = [
    Group(1, 2, 3, 4, 0, 2, 3, 2, (3, 3)),
    *(Group(1, 2, 2, 4, s, 2, 3, 2, (3, 3)) for s in range(1, 4)),
    Group(2, 3, 2, 3, 1, 3, 2, 4, (3, 5)),
    Group(3, 1, 2, 3, 2, 2, 4, 3, (5, 3)),
    Group(2, 1, 1, 4, 2, 3, 5, 1, (1, 1)),
    Group(2, 2, 1, 2, 1, 4, 1, 2, (5, 7)),
    Group(1, 1, 2, 7, 3, 2, 2, 3, (3, 3)),
    Group(2, 3, 4, 1, 0, 2, 3, 2, (3, 3)),
    Group(1, 2, 1, 5, 4, 1, 6, 5, (1, 3)),
    Group(1, 1, 1, 8, 4, 2, 3, 4, (3, 3)),
]
HEADS_CASES = [
    Heads(1, 2, 3, 4, 0, 2, 3),
    *(Heads(1, 2, 2, 4, s, 2, 3) for s in range(1, 4)),
    Heads(2, 3, 2, 3, 1, 3, 2),
    Heads(3, 1, 2, 3, 2, 1, 7),
    Heads(2, 1, 1, 4, 2, 4, 1),
    Heads(1, 1, 2, 7, 3, 2, 5),
    Heads(2, 2, 3, 1, 0, 2, 3),
    Heads(1, 2, 1, 5, 4, 1, 6),
    Heads(1, 1, 1, 8, 4, 2, 3),
]


def random_cases(seed: int, count: int) -> tuple[list[Group], list[Heads]]:
    rng = np.random.default_rng(seed)

    def number(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    group_cases, heads_cases = [], []
    for _ in range(count):
        w = number(2, 5)
        grid = (number(1, 2), number(1, 3), number(1, 3), w, number(0, w - 1))
        kernel = (2 * number(0, 2) + 1, 2 * number(0, 2) + 1)
        group_cases.append(Group(*grid, number(1, 3), number(1, 5), number(1, 5), kernel))
        heads_cases.append(Heads(*grid, number(1, 3), number(1, 5)))
    return group_cases, heads_cases


RANDOM_GROUP_CASES, RANDOM_HEADS_CASES = random_cases(seed=7, count=8)


def case_id(case: object) -> str:
    return "-".join(str(value).replace(" ", "") for value in case)  # type: ignore[attr-defined]


def gradients(function: Callable[..., Tensor], leaves: list[Tensor], seed: int = 9) -> tuple[Tensor, ...]:
    """Gradients of a random weighting of the output, so that no symmetry hides an error."""
    output = function(*leaves)
    return torch.autograd.grad(output, leaves, normal(seeded(seed), *output.shape).to(output))


SHIFTED = pytest.mark.parametrize("shift", [0, 1], ids=["straight", "shifted"])
EVERY = pytest.mark.parametrize("name", ["group", "window", "dictionary", "key"])
