"""Gradients of the operators, and what they keep for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agileir_export.plugins.attention import plain_attention
from agileir_export.plugins.group_shifted_window_attention.operator import plain as plain_group

from .cases import (
    HALF,
    HALF_IDS,
    SHIFTED,
    Group,
    Heads,
    assert_close,
    attention,
    bits,
    gradients,
    group_attention,
    group_tensors,
    heads_tensors,
    key_attention,
    normal,
    random_dictionary,
    seeded,
)

SMALL_GROUP = Group(2, 1, 2, 3, 0, 2, 2, 2, (3, 1))
SMALL_HEADS = Heads(2, 1, 2, 3, 0, 2, 2)


Function = Callable[..., Tensor]


def differentiable(
    operator: str, shift: int, dtype: torch.dtype, case: Heads = SMALL_HEADS, group: Group = SMALL_GROUP
) -> tuple[Function, Function, list[Tensor]]:
    """An operator and its plain formulation as functions of their floating tensors alone."""
    w, case = case.window, case._replace(shift=shift)
    given = group_tensors(group, 1, dtype) if operator == "group" else heads_tensors(case, 1, dtype)
    leaves = [t.requires_grad_() for t in given]
    if operator == "group":
        return lambda *t: group_attention(*t, w, shift), lambda *t: plain_group(*t, w, shift), leaves
    heads = (w, shift, 2)
    if operator == "window":
        return lambda *t: attention(*t, *heads), lambda *t: plain_attention(*t, *heads), leaves
    dictionary = random_dictionary(case, 1)
    selected = bits(dictionary, w * w).unflatten(0, (case.batch, -1))
    return (
        lambda qkv, table: key_attention(qkv, dictionary, table, *heads),
        lambda *t: plain_attention(*t, *heads, selected),
        leaves,
    )


DIFFERENTIABLE = pytest.mark.parametrize("operator", ["group", "window", "key"])


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


@DIFFERENTIABLE
def test_backward_keeps_nothing_of_the_size_of_the_logits(operator: str) -> None:
    w, n = 16, 256
    sizes = {"case": Heads(1, 1, 2, w, 8, 2, 4), "group": Group(1, 1, 2, w, 8, 2, 4, 3, (3, 3))}
    function, plain, leaves = differentiable(operator, 8, torch.float32, **sizes)

    def largest_saved(call: Function) -> int:
        sizes = [0]

        def note(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            call(*leaves)
        return max(sizes)

    assert largest_saved(plain) >= n * n, "the count must see logits"
    kept = largest_saved(function)
    assert 0 < kept < n * n
