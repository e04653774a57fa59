"""The four torch operators against loops in double precision, autograd, and their own contracts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import agileir_export.plugins  # noqa: F401  (registers torch.ops.agileir)
from agileir_export.plugins import windows as window_arithmetic
from agileir_export.plugins.attention import plain_attention
from agileir_export.plugins.group_shifted_window_attention.operator import plain as plain_group
from agileir_export.plugins.key_semantic_dictionary.operator import (
    order_preserving_integer,
)
from agileir_export.plugins.key_semantic_dictionary.operator import plain as plain_dictionary

from . import naive

group_attention = torch.ops.agileir.group_shifted_window_attention
attention = torch.ops.agileir.shifted_window_attention
make_dictionary = torch.ops.agileir.key_semantic_dictionary
key_attention = torch.ops.agileir.key_semantic_attention

HALF = [torch.float16, torch.bfloat16]
HALF_IDS = ["float16", "bfloat16"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only lose by threads, a lot so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- arguments ----


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


def group_tensors(
    case: Group, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
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


def heads_tensors(
    case: Heads, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
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
                    [
                        rng.permutation(tokens)[: rng.integers(1, tokens + 1)].tolist()
                        for _ in range(tokens)
                    ],
                    tokens,
                )
                for _ in range(case.batch * case.rows * case.columns)
            ]
        )
    )


def numpy(*tensors: Tensor) -> list[np.ndarray[Any, Any]]:
    return [t.double().numpy() if t.is_floating_point() else t.numpy() for t in tensors]


def assert_close(
    actual: Tensor, expected: np.ndarray[Any, Any] | Tensor, tolerance: float = 1e-5
) -> None:
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


# ---- agreement with the definition ----


@pytest.mark.parametrize("case", GROUP_CASES + RANDOM_GROUP_CASES, ids=case_id)
def test_group_attention_follows_its_definition(case: Group) -> None:
    tensors = group_tensors(case)
    expected = naive.group_shifted_window_attention(*numpy(*tensors), case.window, case.shift)
    assert_close(group_attention(*tensors, case.window, case.shift), expected)
    assert_close(plain_group(*tensors, case.window, case.shift), expected)


@pytest.mark.parametrize("case", HEADS_CASES + RANDOM_HEADS_CASES, ids=case_id)
def test_attention_follows_its_definition(case: Heads) -> None:
    tensors = heads_tensors(case)
    arguments = (case.window, case.shift, case.heads)
    expected = naive.shifted_window_attention(*numpy(*tensors), *arguments)
    assert_close(attention(*tensors, *arguments), expected)
    assert_close(plain_attention(*tensors, *arguments), expected)


@pytest.mark.parametrize("case", HEADS_CASES + RANDOM_HEADS_CASES, ids=case_id)
def test_key_attention_follows_its_definition(case: Heads) -> None:
    """Rows hold sets that no top-k would choose, also without the token itself or its region."""
    qkv, table = heads_tensors(case)
    dictionary = random_dictionary(case)
    arguments = (case.window, case.shift, case.heads)
    expected = naive.key_semantic_attention(*numpy(qkv, dictionary, table), *arguments)
    assert_close(key_attention(qkv, dictionary, table, *arguments), expected)
    selected = bits(dictionary, case.window**2).unflatten(0, (case.batch, -1))
    assert_close(plain_attention(qkv, table, *arguments, selected), expected)


def test_window_16_with_agileir_sizes() -> None:
    case = Group(1, 1, 1, 16, 8, 2, 6, 4, (3, 3))
    tensors = group_tensors(case)
    expected = naive.group_shifted_window_attention(*numpy(*tensors), 16, 8)
    assert_close(group_attention(*tensors, 16, 8), expected)


def test_mask_adds_minus_100_and_does_not_remove() -> None:
    """Exact logits that differ by more than 100: a token of another region can still win."""
    case = Heads(1, 2, 2, 3, 1, 2, 4)
    generator = seeded(3)
    qkv = integers(generator, -8, 8, 1, 6, 6, 24)
    table = integers(generator, -60, 60, 25, 2)
    dictionary = random_dictionary(case)
    full = naive.shifted_window_attention(*numpy(qkv, table), 3, 1, 2)
    kept = naive.key_semantic_attention(*numpy(qkv, dictionary, table), 3, 1, 2)
    assert_close(attention(qkv, table, 3, 1, 2), full)
    assert_close(key_attention(qkv, dictionary, table, 3, 1, 2), kept)


def test_attention_to_nothing_but_other_regions() -> None:
    """A row whose tokens are all masked: -100 cancels in the softmax and the rest decides."""
    case = Heads(1, 1, 1, 3, 1, 1, 2)
    qkv, table = heads_tensors(case)
    (window,) = naive.windows(1, 3, 3, 3, 1)
    other = [[m for m in range(9) if window.regions[m] != region] for region in window.regions]
    assert all(other)
    dictionary = torch.from_numpy(naive.pack(other, 9))[None]
    expected = naive.key_semantic_attention(*numpy(qkv, dictionary, table), 3, 1, 1)
    assert_close(key_attention(qkv, dictionary, table, 3, 1, 1), expected)


# ---- half precision: only the result may be rounded ----


def assert_rounded(actual: Tensor, expected: np.ndarray[Any, Any], dtype: torch.dtype) -> None:
    """Half a unit in the last place of `dtype`, and what float32 sums cost before it."""
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    error = np.abs(actual.double().numpy() - expected)
    allowed = 0.5 * torch.finfo(dtype).eps * np.abs(expected) + 1e-5
    assert (error <= allowed).all(), f"{(error / allowed).max():.2f} times the allowed error"


@pytest.mark.parametrize("dtype", HALF, ids=HALF_IDS)
@pytest.mark.parametrize("shift", [0, 2])
def test_half_group_attention(dtype: torch.dtype, shift: int) -> None:
    case = Group(2, 1, 2, 5, shift, 3, 4, 3, (3, 3))
    tensors = group_tensors(case, dtype=dtype)
    expected = naive.group_shifted_window_attention(*numpy(*tensors), 5, shift)
    assert_rounded(group_attention(*tensors, 5, shift), expected, dtype)


@pytest.mark.parametrize("dtype", HALF, ids=HALF_IDS)
@pytest.mark.parametrize("shift", [0, 2])
def test_half_attention(dtype: torch.dtype, shift: int) -> None:
    case = Heads(2, 1, 2, 5, shift, 2, 6)
    qkv, table = heads_tensors(case, dtype=dtype)
    dictionary = random_dictionary(case)
    full = naive.shifted_window_attention(*numpy(qkv, table), 5, shift, 2)
    kept = naive.key_semantic_attention(*numpy(qkv, dictionary, table), 5, shift, 2)
    assert_rounded(attention(qkv, table, 5, shift, 2), full, dtype)
    assert_rounded(key_attention(qkv, dictionary, table, 5, shift, 2), kept, dtype)


def test_float16_logits_beyond_its_range() -> None:
    """q . k reaches 10^6, which float16 cannot hold."""
    generator = seeded(5)
    qkv = integers(generator, -300, 300, 1, 4, 4, 3 * 16).half()
    table = normal(generator, 49, 1, dtype=torch.float16)
    expected = naive.shifted_window_attention(*numpy(qkv, table), 4, 1, 1)
    assert_rounded(attention(qkv, table, 4, 1, 1), expected, torch.float16)


# ---- the dictionary ----

# batch, window rows, window columns, w, s
DICTIONARY_GRIDS = [
    (1, 2, 3, 4, 0),
    (2, 2, 2, 4, 1),
    (2, 3, 1, 4, 3),
    (2, 1, 1, 4, 2),
    (1, 1, 2, 7, 3),
    (1, 2, 1, 7, 0),
    (1, 2, 2, 1, 0),
    (1, 1, 1, 8, 4),
]
FEATURES: dict[str, Callable[..., Tensor]] = {
    # Every dot product is exact in float32, so the order is too, in double precision as well.
    "distinct": lambda generator, *shape: integers(generator, -200, 200, *shape),
    "ties": lambda generator, *shape: integers(generator, -1, 1, *shape),
    "flat": lambda generator, *shape: torch.full(shape, 1.5),
    "zero": lambda generator, *shape: torch.zeros(shape),
    # All similarities are 0 or -0.
    "signed zeros": lambda generator, *shape: torch.where(
        torch.rand(shape, generator=generator) < 0.5, -0.0, 0.0
    ),
    "negative": lambda generator, *shape: (
        integers(generator, 1, 9, *shape) * torch.tensor([1.0, -1.0]).repeat(shape[-1])[: shape[-1]]
    ),
}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("grid", DICTIONARY_GRIDS, ids=case_id)
def test_dictionary_is_exact(grid: tuple[int, ...], features: str) -> None:
    batch, rows, columns, w, s = grid
    tokens = w * w
    x = FEATURES[features](seeded(sum(grid)), batch, rows * w, columns * w, 3)
    for top_k in {1, 2, max(1, tokens // 3), max(1, tokens - 1), tokens, tokens + 5}:
        expected = naive.key_semantic_dictionary(*numpy(x), w, s, top_k)
        for dtype in (torch.float32, *HALF):
            typed = x.to(dtype)
            assert torch.equal(typed.float(), x), "the test's features must be exact"
            dictionary = make_dictionary(typed, w, s, top_k)
            assert dictionary.dtype == torch.int32
            assert (bits(dictionary, tokens).sum(-1) == min(top_k, tokens)).all()
            np.testing.assert_array_equal(dictionary.numpy(), expected, f"k = {top_k}, {dtype}")


@pytest.mark.parametrize("shift", [0, 2])
def test_dictionary_of_one_channel_with_both_zeros(shift: int) -> None:
    """Products of one channel keep the sign of zero; 0 and -0 are the same similarity."""
    x = torch.tensor([1.0, -0.0, 0.0, -1.0, 0.0, -0.0, 2.0, -2.0]).repeat(2)
    x = x[torch.randperm(16, generator=seeded())].reshape(1, 4, 4, 1)
    for top_k in range(1, 17):
        expected = naive.key_semantic_dictionary(*numpy(x), 4, shift, top_k)
        np.testing.assert_array_equal(make_dictionary(x, 4, shift, top_k).numpy(), expected)


def test_zero_and_negative_zero_have_the_same_order() -> None:
    """A matrix product may or may not keep the sign of zero: the order must not depend on it."""
    numbers = torch.tensor([-torch.inf, -3e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 1.5, torch.inf])
    order = order_preserving_integer(numbers)
    assert order[4] == order[5]
    assert (order.diff()[[0, 1, 2, 3, 5, 6, 7]] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=["float32", *HALF_IDS])
@pytest.mark.parametrize("shift", [0, 3])
def test_dictionary_of_real_features(dtype: torch.dtype, shift: int) -> None:
    """Exactly K bits; what is taken is, up to rounding, no less similar than what is left."""
    x = normal(seeded(2), 2, 14, 7, 20, dtype=dtype)
    for top_k in (1, 5, 20, 48):
        taken = bits(make_dictionary(x, 7, shift, top_k), 49)
        assert (taken.sum(-1) == top_k).all()
        for row, window in zip(taken, naive.windows(2, 14, 7, 7, shift), strict=True):
            features = np.stack([x[window.batch, r, c].double().numpy() for r, c in window.pixels])
            regions = np.array(window.regions)
            # A bonus larger than any similarity puts the same region first.
            rank = features @ features.T + 1e6 * (regions[:, None] == regions[None, :])
            mask = row.numpy()
            worst_taken = np.where(mask, rank, np.inf).min(1)
            best_left = np.where(mask, -np.inf, rank).max(1)
            assert (worst_taken >= best_left - 1e-4).all()


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("top_k", [1, 12, 30, 49, 60])
def test_plain_dictionary_takes_the_same_of_each_region(shift: int, top_k: int) -> None:
    """Its ties and its choice among other regions are free, the number of tokens is not."""
    x = normal(seeded(4), 2, 14, 7, 20)
    taken = bits(make_dictionary(x, 7, shift, top_k), 49)
    plain = plain_dictionary(x, 7, shift, top_k).flatten(0, 1)
    regions = torch.tensor([window.regions for window in naive.windows(2, 14, 7, 7, shift)])
    same = regions[:, :, None] == regions[:, None, :]
    assert torch.equal(plain & same, taken & same)
    assert (plain.sum(-1) == min(top_k, 49)).all()


def test_dictionary_needs_no_gradient() -> None:
    x = normal(seeded(), 1, 4, 4, 3).requires_grad_()
    assert not make_dictionary(x, 4, 0, 3).requires_grad


@pytest.mark.parametrize("case", HEADS_CASES, ids=case_id)
def test_full_dictionary_is_plain_window_attention(case: Heads) -> None:
    qkv, table = heads_tensors(case)
    arguments = (case.window, case.shift, case.heads)
    expected = attention(qkv, table, *arguments)
    for top_k in (case.window**2, case.window**2 + 7):
        dictionary = make_dictionary(qkv, case.window, case.shift, top_k)
        assert_close(key_attention(qkv, dictionary, table, *arguments), expected, 1e-6)


# ---- gradients ----

SMALL_GROUP = Group(2, 1, 2, 3, 0, 2, 2, 2, (3, 1))
SMALL_HEADS = Heads(2, 1, 2, 3, 0, 2, 2)


def differentiable(
    operator: str, shift: int, dtype: torch.dtype
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]:
    """An operator and its plain formulation as functions of their floating tensors alone."""
    if operator == "group":
        tensors = group_tensors(SMALL_GROUP, 1, dtype)
        return (
            lambda *t: group_attention(*t, 3, shift),
            lambda *t: plain_group(*t, 3, shift),
            [t.requires_grad_() for t in tensors],
        )
    case = SMALL_HEADS._replace(shift=shift)
    leaves = [t.requires_grad_() for t in heads_tensors(case, 1, dtype)]
    if operator == "window":
        return (
            lambda qkv, table: attention(qkv, table, 3, shift, 2),
            lambda qkv, table: plain_attention(qkv, table, 3, shift, 2),
            leaves,
        )
    dictionary = random_dictionary(case, 1)
    selected = bits(dictionary, 9).unflatten(0, (case.batch, -1))
    return (
        lambda qkv, table: key_attention(qkv, dictionary, table, 3, shift, 2),
        lambda qkv, table: plain_attention(qkv, table, 3, shift, 2, selected),
        leaves,
    )


def gradients(
    function: Callable[..., Tensor], leaves: list[Tensor], seed: int = 9
) -> tuple[Tensor, ...]:
    """Gradients of a random weighting of the output, so that no symmetry hides an error."""
    output = function(*leaves)
    return torch.autograd.grad(output, leaves, normal(seeded(seed), *output.shape).to(output))


DIFFERENTIABLE = pytest.mark.parametrize("operator", ["group", "window", "key"])
SHIFTED = pytest.mark.parametrize("shift", [0, 1], ids=["straight", "shifted"])


@DIFFERENTIABLE
@SHIFTED
def test_gradcheck(operator: str, shift: int) -> None:
    function, _, leaves = differentiable(operator, shift, torch.float64)
    leaves = [t.detach().requires_grad_() for t in leaves]
    assert torch.autograd.gradcheck(function, leaves)


@DIFFERENTIABLE
@SHIFTED
def test_gradients_equal_those_of_the_plain_formulation(operator: str, shift: int) -> None:
    function, plain, leaves = differentiable(operator, shift, torch.float32)
    for actual, expected in zip(gradients(function, leaves), gradients(plain, leaves), strict=True):
        assert_close(actual, expected)


@DIFFERENTIABLE
@pytest.mark.parametrize("dtype", HALF, ids=HALF_IDS)
def test_half_gradients(operator: str, dtype: torch.dtype) -> None:
    """Close to double precision at the same rounded arguments, and in the type of the arguments."""
    function, plain, leaves = differentiable(operator, 1, dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    bound = 4 * torch.finfo(dtype).eps
    for actual, expected in zip(gradients(function, leaves), gradients(plain, exact), strict=True):
        assert actual.dtype == dtype
        assert (actual.double() - expected).norm() <= bound * expected.norm()


@DIFFERENTIABLE
def test_gradient_for_some_arguments_only(operator: str) -> None:
    function, _, leaves = differentiable(operator, 1, torch.float32)
    everything = gradients(function, leaves)
    for index, expected in enumerate(everything):
        alone = [leaf.detach() for leaf in leaves]
        alone[index].requires_grad_()
        output = function(*alone)
        upstream = normal(seeded(9), *output.shape)
        (actual,) = torch.autograd.grad(output, alone[index : index + 1], upstream)
        assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize("operator", ["group", "window", "key"])
def test_backward_keeps_nothing_of_the_size_of_the_logits(operator: str) -> None:
    w, n = 16, 256
    if operator == "group":
        tensors = group_tensors(Group(1, 1, 2, w, 8, 2, 4, 3, (3, 3)))
        function, plain = partial(group_attention), partial(plain_group)
        arguments: tuple[Any, ...] = (w, 8)
        plain_arguments = arguments
    else:
        case = Heads(1, 1, 2, w, 8, 2, 4)
        qkv, table = heads_tensors(case)
        function, plain, arguments = partial(attention), partial(plain_attention), (w, 8, 2)
        tensors, plain_arguments = (qkv, table), arguments
        if operator == "key":
            dictionary = make_dictionary(qkv, w, 8, 40)
            function = partial(
                lambda qkv, table, *rest: key_attention(qkv, dictionary, table, *rest)
            )
            plain_arguments = (*arguments, bits(dictionary, n)[None])
    leaves = [t.requires_grad_() for t in tensors]

    def largest_saved(call: Callable[..., Tensor], *extra: Any) -> int:
        sizes = [0]

        def note(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            call(*leaves, *extra)
        return max(sizes)

    assert largest_saved(plain, *plain_arguments) >= n * n, "the count must see logits"
    kept = largest_saved(function, *arguments)
    assert 0 < kept < n * n


# ---- behaviour that no argument may change ----


def every_operator() -> dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]]:
    """A shifted call of every operator on two images of 2 x 3 windows."""
    group = Group(2, 2, 3, 3, 1, 2, 2, 2, (3, 3))
    heads = Heads(2, 2, 3, 3, 1, 2, 2)
    qkv, table = heads_tensors(heads)
    return {
        "group": (group_attention, (*group_tensors(group), 3, 1)),
        "window": (attention, (qkv, table, 3, 1, 2)),
        "dictionary": (make_dictionary, (integers(seeded(), -9, 9, 2, 6, 9, 4), 3, 1, 4)),
        "key": (key_attention, (qkv, random_dictionary(heads), table, 3, 1, 2)),
    }


EVERY = pytest.mark.parametrize("name", ["group", "window", "dictionary", "key"])


@EVERY
@pytest.mark.parametrize("per_pass", [1, 5])
def test_several_passes_give_the_same(
    name: str, per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 windows a pass: of 12 windows the last pass has 2, and passes straddle the images."""
    operator, arguments = every_operator()[name]
    leaves = [
        t.requires_grad_() for t in arguments if isinstance(t, Tensor) and t.is_floating_point()
    ]

    def results() -> list[Tensor]:
        output = operator(*arguments)
        return [output, *(gradients(lambda *_: output, leaves) if output.requires_grad else ())]

    passes: list[list[slice]] = []
    original = window_arithmetic.window_slices

    def counted(windows: int, rows: int, tokens: int, itemsize: int) -> list[slice]:
        parts = list(original(windows, rows, tokens, itemsize))
        passes.append(parts)
        return parts

    expected = results()
    rows = {"group": 1 * 4, "window": 2 * 4, "dictionary": 4 * 8, "key": 2 * 4}[name]
    monkeypatch.setattr(window_arithmetic, "LOGITS_BUDGET", per_pass * rows * 81)
    for module in (
        "attention",
        "group_shifted_window_attention.operator",
        "key_semantic_dictionary.operator",
    ):
        found = import_module(f"agileir_export.plugins.{module}")
        monkeypatch.setattr(found, "window_slices", counted)
    actual = results()
    assert [len(parts) for parts in passes] == [-(-12 // per_pass)] * (1 + (len(actual) > 1))
    for one, several in zip(expected, actual, strict=True):
        assert_close(several, one)


@EVERY
def test_images_of_a_batch_do_not_meet(name: str) -> None:
    operator, arguments = every_operator()[name]
    image, *rest = arguments
    by_image = operator(*arguments).unflatten(0, (2, -1))
    for order in ([0], [1], [1, 0]):
        chosen = list(rest)
        if name == "key":
            chosen[0] = rest[0].unflatten(0, (2, -1))[order].flatten(0, 1)
        result = operator(image[order], *chosen)
        assert_close(result.unflatten(0, (len(order), -1)), by_image[order], 1e-6)


@EVERY
def test_arguments_are_left_as_they_are_and_results_repeat(name: str) -> None:
    operator, arguments = every_operator()[name]
    before = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    first = operator(*arguments)
    assert torch.equal(first, operator(*arguments))
    for old, new in zip(before, arguments, strict=True):
        assert torch.equal(old, new) if isinstance(old, Tensor) else old == new


def channels_first_view(image: Tensor) -> Tensor:
    """The same image, in memory as [B, C, H, W]."""
    return image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)


@EVERY
def test_layout_in_memory_does_not_matter(name: str) -> None:
    operator, (image, *rest) = every_operator()[name]
    view = channels_first_view(image)
    assert not view.is_contiguous()
    assert_close(operator(view, *rest), operator(image, *rest), 1e-6)


@EVERY
@pytest.mark.parametrize(
    "check",
    [
        "test_schema",
        "test_autograd_registration",
        "test_faketensor",
        pytest.param("test_aot_dispatch_dynamic", marks=pytest.mark.slow),
    ],
)
def test_opcheck(name: str, check: str) -> None:
    operator, arguments = every_operator()[name]
    if name != "dictionary":
        arguments = tuple(
            a.requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a
            for a in arguments
        )
    torch.library.opcheck(operator.default, arguments, test_utils=check)


@EVERY
@SHIFTED
def test_fake_result_has_the_layout_of_the_real_one(name: str, shift: int) -> None:
    """One window of a channels-first image: the case where a reshape copies nothing."""
    case, group = Heads(2, 1, 1, 3, shift, 2, 2), Group(2, 1, 1, 3, shift, 2, 2, 2, (3, 3))
    qkv, table = heads_tensors(case)
    view = channels_first_view(qkv)
    x, *weights = group_tensors(group)
    operator, arguments = {
        "group": (group_attention, (channels_first_view(x), *weights, 3, shift)),
        "window": (attention, (view, table, 3, shift, 2)),
        "dictionary": (make_dictionary, (view, 3, shift, 4)),
        "key": (key_attention, (view, random_dictionary(case), table, 3, shift, 2)),
    }[name]
    torch.library.opcheck(operator.default, arguments, test_utils="test_faketensor")


@EVERY
def test_compile_in_one_graph(name: str) -> None:
    operator, arguments = every_operator()[name]
    image, *rest = arguments
    compiled = torch.compile(lambda image: operator(image, *rest), fullgraph=True, backend="eager")
    if name == "dictionary":
        assert torch.equal(compiled(image), operator(*arguments))
        return
    leaf = image.requires_grad_()
    assert_close(compiled(leaf), operator(leaf, *rest), 1e-6)
    assert_close(
        gradients(compiled, [leaf])[0], gradients(lambda x: operator(x, *rest), [leaf])[0], 1e-6
    )


ARGUMENTS = {
    "group_shifted_window_attention": (
        "x qkv_weight qkv_bias q_dw_weight q_dw_bias bias_table window_size shift_size"
    ),
    "shifted_window_attention": "qkv bias_table window_size shift_size num_heads",
    "key_semantic_dictionary": "x window_size shift_size top_k",
    "key_semantic_attention": "qkv dictionary bias_table window_size shift_size num_heads",
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_argument_names_and_order(name: str) -> None:
    schema = getattr(torch.ops.agileir, name).default._schema
    assert [argument.name for argument in schema.arguments] == ARGUMENTS[name].split()
    assert [str(result.type) for result in schema.returns] == ["Tensor"]


# ---- refusals ----


def valid(name: str) -> dict[str, Any]:
    """Arguments by name of a call that is accepted: images 8 x 12, w = 4, s = 2."""
    ones = torch.ones
    window: dict[str, Any] = {"window_size": 4, "shift_size": 2}
    if name == "group":
        return {
            "x": ones(2, 8, 12, 6),
            "qkv_weight": ones(3, 10, 2),
            "qkv_bias": ones(3, 10),
            "q_dw_weight": ones(3, 4, 3, 5),
            "q_dw_bias": ones(3, 4),
            "bias_table": ones(49, 3),
            **window,
        }
    if name == "dictionary":
        return {"x": ones(2, 8, 12, 6), **window, "top_k": 5}
    arguments = {"qkv": ones(2, 8, 12, 24), "bias_table": ones(49, 2), **window, "num_heads": 2}
    if name == "key":
        arguments["dictionary"] = torch.ones(12, 16, 1, dtype=torch.int32)
    return arguments


OPERATORS = {
    "group": group_attention,
    "window": attention,
    "dictionary": make_dictionary,
    "key": key_attention,
}
IMAGE = {"group": "x", "window": "qkv", "dictionary": "x", "key": "qkv"}
WIDTH = {"group": 6, "window": 24, "dictionary": 6, "key": 24}


def refusals() -> list[Any]:
    """(operator, what changes, words of the message that tell what is wrong)."""
    ones, cases = torch.ones, []

    def add(name: str, label: str, words: str, **changes: Any) -> None:
        cases.append(pytest.param(name, changes, words.split(), id=f"{name}-{label}"))

    for name, image in IMAGE.items():
        c = WIDTH[name]
        add(name, "height", "4 10x12 multiple", **{image: ones(2, 10, 12, c)})
        add(name, "width", "4 8x13 multiple", **{image: ones(2, 8, 13, c)})
        add(name, "smaller-than-window", "4 3x12 multiple", **{image: ones(1, 3, 12, c)})
        add(name, "no-height", "4 0x12 multiple", **{image: ones(1, 0, 12, c)})
        add(name, "three-dimensions", "3 8 12", **{image: ones(8, 12, c)})
        add(name, "five-dimensions", "5 1", **{image: ones(1, 2, 8, 12, c)})
        add(name, "integer-image", "int32", **{image: ones(2, 8, 12, c, dtype=torch.int32)})
        add(name, "integer-image-64", "int64", **{image: ones(2, 8, 12, c, dtype=torch.int64)})
        add(name, "window-0", "window_size 0", window_size=0, shift_size=0)
        add(name, "negative-window", "window_size -4", window_size=-4, shift_size=0)
        add(name, "negative-shift", "shift_size -1", shift_size=-1)
        add(name, "shift-of-a-window", "shift_size 3 4", shift_size=4)
        add(name, "shift-over-a-window", "shift_size 3 9", shift_size=9)
        if name == "dictionary":
            continue
        heads = 3 if name == "group" else 2
        shapes = {
            "rows": (48, heads),
            "columns": (49, heads + 1),
            "transposed": (heads, 49),
            "expanded": (heads, 16, 16),
        }
        for label, shape in shapes.items():
            words = f"bias_table 49 {heads} {' '.join(map(str, shape))}"
            add(name, f"table-{label}", words, bias_table=ones(shape))
        half = {"bias_table": ones(49, heads, dtype=torch.float16)}
        add(name, "mixed-types", "float32 float16", **half)
        elsewhere = {"bias_table": ones(49, heads, device="meta")}
        add(name, "mixed-devices", "cpu meta", **elsewhere)

    for name in ("window", "key"):
        add(name, "heads-do-not-divide", "24 5", num_heads=5, bias_table=ones(49, 5))
        add(name, "no-heads", "num_heads 0", num_heads=0)
        add(name, "negative-heads", "num_heads -2", num_heads=-2)
        add(name, "channels-not-3C", "25 3 2", qkv=ones(2, 8, 12, 25))
        add(name, "no-channels", "0 2", qkv=ones(2, 8, 12, 0))

    for top_k in (0, -1):
        add("dictionary", f"top_k-{top_k}", f"top_k 1 {top_k}", top_k=top_k)

    for label, shape in {
        "windows": (6, 16, 1),
        "tokens": (12, 15, 1),
        "words": (12, 16, 2),
        "dimensions": (2, 6, 16, 1),
        "one-bit-an-element": (12, 16, 16),
    }.items():
        words = f"dictionary 12 16 1 {' '.join(map(str, shape))}"
        add("key", f"dictionary-{label}", words, dictionary=ones(shape, dtype=torch.int32))
    for dtype in (torch.int64, torch.bool, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        words = f"dictionary int32 {kind}"
        add("key", f"dictionary-{kind}", words, dictionary=ones(12, 16, 1, dtype=dtype))

    for kernel in ((2, 3), (3, 4), (4, 4)):
        label = "x".join(map(str, kernel))
        add("group", f"kernel-{label}", label, q_dw_weight=ones(3, 4, *kernel))
    add("group", "channels", "7 3 2", x=ones(2, 8, 12, 7))
    add("group", "value-width", "4 2 10 11", qkv_weight=ones(3, 11, 2))
    add("group", "key-width", "3 2 8 10", q_dw_weight=ones(3, 3, 3, 5))
    add("group", "no-key-width", "0 2", q_dw_weight=ones(3, 0, 3, 5), qkv_weight=ones(3, 2, 2))
    add("group", "weight-groups", "6 2 2", qkv_weight=ones(2, 10, 2))
    add("group", "weight-dimensions", "30 2", qkv_weight=ones(30, 2))
    add("group", "filter-dimensions", "3 4 15", q_dw_weight=ones(3, 4, 15))
    add("group", "filter-with-channel-axis", "3 4 1 5", q_dw_weight=ones(3, 4, 1, 3, 5))
    add("group", "bias-groups", "qkv_bias 3 2 10", qkv_bias=ones(2, 10))
    add("group", "bias-rows", "qkv_bias 3 10 9", qkv_bias=ones(3, 9))
    add("group", "bias-flat", "qkv_bias 3 10 30", qkv_bias=ones(30))
    add("group", "filter-groups", "q_dw_weight 3 2 4 5", q_dw_weight=ones(2, 4, 3, 5))
    add("group", "filter-bias-groups", "q_dw_bias 3 4 1", q_dw_bias=ones(1, 4))
    add("group", "filter-bias-width", "q_dw_bias 3 4 5", q_dw_bias=ones(3, 5))
    for weight in ("qkv_weight", "qkv_bias", "q_dw_weight", "q_dw_bias"):
        changed = {weight: valid("group")[weight].to(torch.bfloat16)}
        add("group", f"mixed-types-{weight}", f"{weight} bfloat16 float32", **changed)
    return cases


@EVERY
def test_what_the_refusals_start_from_is_accepted(name: str) -> None:
    result = OPERATORS[name](**valid(name))
    if name != "dictionary":
        assert torch.isfinite(result).all()


@pytest.mark.parametrize(("name", "changes", "words"), refusals())
def test_refusal_names_operator_and_numbers(
    name: str, changes: dict[str, Any], words: list[str]
) -> None:
    arguments = valid(name) | changes
    with pytest.raises(ValueError) as refusal:
        OPERATORS[name](**arguments)
    message = str(refusal.value)
    full_name = OPERATORS[name].default.name().removeprefix("agileir::")
    for word in (full_name, *words):
        assert re.search(rf"(?<![\w-]){word}(?!\d)", message), f"no {word!r} in: {message}"
