"""The four torch operators against loops in double precision, autograd, and their own contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agileir_export.plugins.attention import plain_attention
from agileir_export.plugins.group_shifted_window_attention.operator import plain as plain_group
from agileir_export.plugins.key_semantic_dictionary.operator import order_preserving_integer
from agileir_export.plugins.key_semantic_dictionary.operator import plain as plain_dictionary

from . import naive
from .cases import (
    GROUP_CASES,
    HALF,
    HALF_IDS,
    HEADS_CASES,
    RANDOM_GROUP_CASES,
    RANDOM_HEADS_CASES,
    Group,
    Heads,
    assert_close,
    attention,
    bits,
    case_id,
    group_attention,
    group_tensors,
    heads_tensors,
    integers,
    key_attention,
    make_dictionary,
    normal,
    numpy,
    random_dictionary,
    seeded,
)


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
    "signed zeros": lambda generator, *shape: torch.where(torch.rand(shape, generator=generator) < 0.5, -0.0, 0.0),
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
