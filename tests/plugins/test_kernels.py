"""The Triton kernels, interpreted on the CPU, against the loops of `naive` and, where windows are large, float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from agileir_export.plugins.bias_rows import bias_rows
from agileir_export.plugins.catalogue import BY_TORCH_NAME
from agileir_export.plugins.dispatch import kernel_module, plan_kernel
from agileir_export.plugins.key_semantic_dictionary.operator import key_semantic_dictionary

from . import naive
from .cases import case_id
from .interpreter import Interpreter

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
Run = Callable[..., Tensor]
GROUP, ATTENTION = "group_shifted_window_attention", "shifted_window_attention"
DICTIONARY, KEYS = "key_semantic_dictionary", "key_semantic_attention"


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> Generator:
    return Generator().manual_seed(sum(map(ord, request.node.name)))


def reference(operator: str, tensors: list[Tensor], attributes: dict[str, int]) -> Tensor:
    """`naive` for small windows; the torch operator in float64, itself tested against `naive`, for large ones."""
    if attributes["window_size"] <= 8:
        arrays = [tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy() for tensor in tensors]
        return torch.from_numpy(getattr(naive, operator)(*arrays, *attributes.values()))
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
    return BY_TORCH_NAME[operator].torch_operator()(*wide, *attributes.values())


def assert_agrees(result: Tensor, expected: Tensor) -> None:
    """float32: every element within 1e-4 of the largest; half types: by relative error of the whole."""
    assert result.shape == expected.shape
    difference = result.double() - expected
    assert torch.isfinite(difference).all()
    limit = TOLERANCE[result.dtype]
    if result.dtype == torch.float32:
        assert difference.abs().max() <= limit * expected.abs().max()
    else:
        assert difference.norm() <= limit * expected.norm()


def check(run: Run, operator: str, tensors: list[Tensor], attributes: dict[str, int], *tactic: int) -> None:
    """The kernel's result is the reference's: exactly that of a dictionary, closely that of an attention."""
    result, expected = run(operator, tensors, attributes, *tactic), reference(operator, tensors, attributes)
    if operator == DICTIONARY:
        assert torch.equal(result, expected)
    else:
        assert_agrees(result, expected)


def group_case(
    generator: Generator,
    dtype: torch.dtype,
    image: tuple[int, int, int],
    window: int,
    groups: int,
    key: int,
    width: int,
    kernel: tuple[int, int] = (5, 5),
) -> list[Tensor]:
    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    rows = 2 * key + width
    return [
        draw(*image, groups * width),
        draw(groups, rows, width, scale=width**-0.5),
        draw(groups, rows, scale=0.3),
        draw(groups, key, *kernel, scale=0.4),
        draw(groups, key),
        draw((2 * window - 1) ** 2, groups),
    ]


def attention_case(
    generator: Generator, dtype: torch.dtype, image: tuple[int, int, int], window: int, heads: int, width: int
) -> list[Tensor]:
    qkv = torch.randn(*image, 3 * heads * width, generator=generator)
    table = torch.randn((2 * window - 1) ** 2, heads, generator=generator)
    return [qkv.to(dtype), table.to(dtype)]


def integers(generator: Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Small integers: sums of products are exact in every order, and many rows tie."""
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


def arguments(
    generator: Generator, dtype: torch.dtype, operator: str, window: int, shift: int, image: Any, *sizes: Any
) -> tuple[list[Tensor], dict[str, int]]:
    """Tensors and attributes.

    `sizes` are, of groups: their number, the width of a key and of a value, the depthwise filter; of a dictionary: the
    channels and how many keys are taken; of attention: the heads, the width of one and, of keys, how many were taken.
    """
    number = {"window_size": window, "shift_size": shift}
    if operator == GROUP:
        return group_case(generator, dtype, image, window, *sizes), number
    if operator == DICTIONARY:
        return [integers(generator, dtype, *image, sizes[0])], number | {"top_k": sizes[1]}
    heads, width, *top_k = sizes
    qkv, table = attention_case(generator, dtype, image, window, heads, width)
    keys = [key_semantic_dictionary(torch.randn(*image, 7, generator=generator), window, shift, k) for k in top_k]
    return [qkv, *keys, table], number | {"num_heads": heads}


FLOATS = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["float32", "float16", "bfloat16"])

CASES: list[tuple[Any, ...]] = [
    (GROUP, 4, 0, (1, 4, 8), 3, 4, 10, (3, 5)),
    (GROUP, 4, 3, (2, 8, 4), 2, 16, 6, (5, 3)),
    (GROUP, 5, 2, (1, 10, 5), 2, 3, 5, (1, 1)),
    (GROUP, 6, 1, (1, 6, 12), 2, 8, 16, (5, 5)),
    (GROUP, 7, 3, (1, 7, 14), 2, 20, 8, (5, 5)),
    (GROUP, 8, 4, (1, 8, 16), 2, 12, 10, (5, 5)),
    (ATTENTION, 4, 1, (2, 8, 4), 2, 10),
    (ATTENTION, 7, 3, (1, 7, 14), 3, 30),
    (ATTENTION, 8, 0, (2, 16, 8), 2, 10),
    (ATTENTION, 8, 5, (1, 16, 24), 1, 8),
    (ATTENTION, 16, 8, (1, 16, 32), 2, 17),
    (DICTIONARY, 4, 0, (2, 4, 8), 5, 1),
    (DICTIONARY, 4, 1, (1, 8, 8), 12, 9),
    (DICTIONARY, 6, 1, (1, 12, 6), 9, 7),
    (DICTIONARY, 7, 3, (1, 14, 7), 33, 20),
    (DICTIONARY, 8, 4, (1, 16, 8), 6, 64),
    (DICTIONARY, 8, 2, (1, 8, 24), 40, 63),
    (DICTIONARY, 16, 8, (1, 16, 16), 20, 64),
    (KEYS, 4, 1, (2, 8, 4), 2, 10, 3),
    (KEYS, 6, 2, (1, 6, 12), 2, 6, 10),
    (KEYS, 7, 0, (1, 14, 7), 1, 30, 20),
    (KEYS, 8, 4, (1, 8, 16), 2, 8, 16),
    (KEYS, 8, 3, (1, 16, 8), 2, 12, 64),
    (KEYS, 16, 8, (1, 32, 16), 1, 48, 64),
]
# The widths of the presets, two groups of them, shifted as in every second layer.
PRESETS = [
    (GROUP, 8, 4, (1, 8, 16), 2, 8, 8),
    (GROUP, 16, 8, (1, 16, 16), 2, 16, 30),
    (GROUP, 16, 8, (1, 16, 16), 2, 32, 8),
]


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)],
    ids=["float32", "float16", "bfloat16"],
)
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_every_operator(run: Run, generator: Generator, dtype: torch.dtype, case: tuple[Any, ...]) -> None:
    check(run, case[0], *arguments(generator, dtype, *case))


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in (ATTENTION, KEYS) and case[1] < 16], ids=case_id)
def test_attention_takes_biases_in_both_forms(run: Interpreter, generator: Generator, case: tuple[Any, ...]) -> None:
    """A table as it is, and its row form: what an engine may hand to the kernel."""
    (*images, table), attributes = arguments(generator, torch.float32, *case)
    expected = reference(case[0], [*images, table], attributes)
    assert_agrees(run(case[0], [*images, table], attributes, rows=False), expected)
    rows = bias_rows(table, attributes["window_size"], images[0].shape[-1] // attributes["num_heads"] // 3)
    assert_agrees(run(case[0], [*images, rows.contiguous()], attributes), expected)


@pytest.mark.parametrize("case", PRESETS, ids=["tiny", "agileir", "agileir_light"])
def test_group_attention_of_presets(run: Run, generator: Generator, case: tuple[Any, ...]) -> None:
    check(run, GROUP, *arguments(generator, torch.float32, *case))


@pytest.mark.parametrize(
    ("window", "shift", "image", "channels", "top_k"),
    [(4, 2, (2, 4, 12), 7, 5), (8, 0, (1, 16, 8), 30, 16), (8, 4, (1, 8, 16), 17, 40), (16, 8, (1, 16, 16), 12, 64)],
)
def test_dictionary_of_random_features_in_float32(
    run: Run, generator: Generator, window: int, shift: int, image: Any, channels: int, top_k: int
) -> None:
    """Sums that are rounded: the sets still agree but for ties within a rounding, which these features do not have."""
    tensors = [torch.randn(*image, channels, generator=generator)]
    attributes = {"window_size": window, "shift_size": shift, "top_k": top_k}
    check(run, DICTIONARY, tensors, attributes)


def test_dictionary_of_a_flat_image_takes_the_first_tokens(run: Run) -> None:
    attributes = {"window_size": 4, "shift_size": 0, "top_k": 5}
    result = run(DICTIONARY, [torch.zeros(1, 4, 4, 3)], attributes)
    assert result.unique().tolist() == [0b11111]


def test_dictionary_orders_negative_zero_huge_and_infinite_similarities(run: Run) -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3e18, -3e18, 1.0, -1.0, 1e25, 2.0, -2.0, 5.0, 7.0, -7.0, 0.5, 9.0])
    tensors = [values.reshape(1, 4, 4, 1)]
    for top_k in (1, 4, 8, 12, 15):
        attributes = {"window_size": 4, "shift_size": 0, "top_k": top_k}
        result = run(DICTIONARY, tensors, attributes)
        expected = key_semantic_dictionary(*tensors, *attributes.values())
        assert torch.equal(result, expected), top_k


def test_dictionary_takes_whole_rows_ties_of_nan_and_single_keys(run: Run, generator: Generator) -> None:
    """Where the search has nothing to find, ends at once, or meets keys of both signs that are far apart."""
    for x in (
        torch.full((1, 4, 4, 2), float("nan")),
        torch.cat([torch.full((1, 2, 4, 1), 1e18), torch.full((1, 2, 4, 1), -1e18)], 1),
        torch.randn(1, 4, 4, 1, generator=generator).exp() * torch.tensor([1.0, -1e-20, -1.0, 1e10])[:, None],
    ):
        for top_k in (1, 7, 8, 9, 15, 16, 30):
            result = run(DICTIONARY, [x], {"window_size": 4, "shift_size": 1, "top_k": top_k})
            assert torch.equal(result, key_semantic_dictionary(x, 4, 1, top_k)), top_k


def test_dictionary_keeps_its_count_with_not_a_number(run: Run, generator: Generator) -> None:
    x = torch.randn(1, 4, 4, 3, generator=generator)
    x[0, 1, 2, 0] = float("nan")
    result = run(DICTIONARY, [x], {"window_size": 4, "shift_size": 0, "top_k": 6})
    assert [int(word).bit_count() for word in result.flatten()] == [6] * 16


@pytest.mark.parametrize("tactic", [2, 3])
def test_all_tactics_agree(run: Run, generator: Generator, tactic: int) -> None:
    given = {
        each: arguments(generator, torch.float32, each, 16, 4, (1, 16, 16), *sizes)
        for each, sizes in {ATTENTION: (2, 10), KEYS: (1, 10, 30), DICTIONARY: (9, 30)}.items()
    }
    for operator, (tensors, attributes) in given.items():
        if tactic <= len(kernel_module(operator).TACTICS):
            check(run, operator, tensors, attributes, tactic)


@FLOATS
@pytest.mark.parametrize("tactic", [1, 2])
def test_all_tactics_of_groups_agree(run: Run, generator: Generator, dtype: torch.dtype, tactic: int) -> None:
    """Several blocks of queries a window, in half precision of as many queries as the tactic says."""
    given = arguments(generator, dtype, GROUP, 16, 5, (1, 16, 16), 2, 6, 10, (5, 3))
    queries = plan_kernel(GROUP, *given, tactic).constants["queries"]
    assert queries == (64 if dtype == torch.float32 else 64 * 2 ** (tactic - 1))
    check(run, GROUP, *given, tactic)


@FLOATS
@pytest.mark.parametrize("window", [4, 7, 8])
def test_biases_of_groups_as_a_table_and_in_rows(
    run: Run, generator: Generator, dtype: torch.dtype, window: int
) -> None:
    """The kernel makes nothing else of a table than of the rows that are made of it beforehand."""
    tensors, numbers = arguments(generator, dtype, GROUP, window, 2, (1, window, 2 * window), 2, 6, 10, (3, 3))
    rows = bias_rows(tensors[-1].float(), window, 6).to(dtype)
    result = run(GROUP, tensors, numbers)
    assert torch.equal(run(GROUP, [*tensors[:-1], rows], numbers), result)
    assert_agrees(run(GROUP, tensors, numbers, rows=False), reference(GROUP, tensors, numbers))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize(
    "case",
    [
        (DICTIONARY, 32, 16, (1, 32, 32), 24, 512),
        (KEYS, 32, 16, (1, 32, 32), 1, 30, 512),
        (GROUP, 16, 8, (1, 32, 16), 3, 16, 30),
        (GROUP, 16, 8, (1, 32, 16), 3, 32, 8),
    ],
    ids=case_id,
)
def test_large_windows_and_several(run: Run, generator: Generator, dtype: torch.dtype, case: tuple[Any, ...]) -> None:
    check(run, case[0], *arguments(generator, dtype, *case))


def test_logits_and_sums_beyond_the_range_of_float16(run: Run) -> None:
    """Logits of 113137, and values that add up to 256000 before they are divided: float16 ends at 65504."""
    qkv = torch.full((1, 16, 16, 24), 200.0, dtype=torch.float16)
    qkv[..., 16:] = 1000 + torch.arange(8)
    table = torch.zeros(31**2, 1, dtype=torch.float16)
    everything = torch.full((1, 256, 16), 2**16 - 1, dtype=torch.int32)
    heads = {"window_size": 16, "shift_size": 0, "num_heads": 1}
    for operator, tensors in {
        ATTENTION: [qkv, table],
        KEYS: [qkv, everything, table],
    }.items():
        assert torch.equal(run(operator, tensors, heads), qkv[..., 16:]), operator
    bias = torch.tensor([200.0] * 16 + [1000.0 + channel for channel in range(8)]).half()
    nothing = torch.zeros(1, 24, 8).half(), bias[None], torch.zeros(1, 8, 1, 1).half(), bias[None, :8], table
    result = run(GROUP, [qkv[..., :8], *nothing], {"window_size": 16, "shift_size": 0})
    assert torch.equal(result, qkv[..., 16:])


def test_similarities_beyond_the_range_of_float16(run: Run, generator: Generator) -> None:
    tensors = [integers(generator, torch.float16, 1, 8, 8, 20) * 100]
    attributes = {"window_size": 8, "shift_size": 4, "top_k": 20}
    check(run, DICTIONARY, tensors, attributes)
