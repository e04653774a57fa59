"""What the kernels are not started for, or take in another form: refusals, empty batches, layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .cases import Group, Heads, group_tensors, heads_tensors

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

from agileir_export.plugins.catalogue import BY_TORCH_NAME
from agileir_export.plugins.dispatch import kernel_module

Run = Callable[..., Tensor]


def good(operator: str) -> tuple[list[Tensor], dict[str, int]]:
    """Tensors and attributes that a kernel takes."""
    number = {"window_size": 4, "shift_size": 1}
    qkv, table = heads_tensors(Heads(1, 1, 2, 4, 1, 2, 6))
    return {
        "group_shifted_window_attention": ([*group_tensors(Group(1, 1, 1, 4, 1, 2, 6, 4, (3, 3)))], number),
        "shifted_window_attention": ([qkv, table], number | {"num_heads": 2}),
        "key_semantic_attention": ([qkv, torch.ones(2, 16, 1, dtype=torch.int32), table], number | {"num_heads": 2}),
        "key_semantic_dictionary": ([torch.ones(1, 4, 4, 3)], number | {"top_k": 3}),
    }[operator]


GOOD = sorted(BY_TORCH_NAME)


@pytest.mark.parametrize("operator", GOOD)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window_size": 3}, "multiple of window_size 3"),
        ({"shift_size": 4}, "shift_size"),
        ({"shift_size": -1}, "shift_size"),
    ],
)
def test_bad_windows_are_refused(run: Run, operator: str, change: dict[str, int], message: str) -> None:
    tensors, attributes = good(operator)
    assert torch.is_tensor(run(operator, tensors, attributes))
    with pytest.raises(ValueError, match=message):
        run(operator, tensors, attributes | change)


@pytest.mark.parametrize("operator", GOOD)
def test_double_precision_and_unknown_tactics_are_refused(run: Run, operator: str) -> None:
    tensors, attributes = good(operator)
    with pytest.raises(ValueError, match="takes float32"):
        run(operator, [tensors[0].double(), *tensors[1:]], attributes)
    with pytest.raises(ValueError, match="tactic"):
        run(operator, tensors, attributes, 9)


@pytest.mark.parametrize("operator", ["group_shifted_window_attention", "shifted_window_attention"])
def test_every_tensor_shape_is_checked(run: Run, operator: str) -> None:
    tensors, attributes = good(operator)
    for index in range(1, len(tensors)):
        wrong: list[Any] = list(tensors)
        wrong[index] = torch.cat([tensors[index], tensors[index][:1]])
        with pytest.raises(ValueError, match="must be"):
            run(operator, wrong, attributes)


def test_a_dictionary_of_other_windows_is_refused(run: Run) -> None:
    (qkv, dictionary, table), attributes = good("key_semantic_attention")
    with pytest.raises(ValueError, match=r"dictionary must be \[2, 16, 1\]"):
        run("key_semantic_attention", [qkv, dictionary[:1], table], attributes)


def test_windows_beyond_the_kernels_are_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="1024 tokens"):
        run("key_semantic_dictionary", [torch.ones(1, 33, 33, 3)], {"window_size": 33, "shift_size": 0, "top_k": 3})
    tensors = group_tensors(Group(1, 1, 1, 17, 0, 2, 6, 4, (3, 3)))
    with pytest.raises(ValueError, match="256 tokens"):
        run("group_shifted_window_attention", tensors, {"window_size": 17, "shift_size": 0})


@pytest.mark.parametrize("operator", GOOD)
def test_more_pixels_than_are_counted_are_refused(operator: str) -> None:
    tensors, attributes = good(operator)
    image, *rest = (tuple(tensor.shape) for tensor in tensors)
    launch = kernel_module(operator).launch
    if operator == "key_semantic_attention":
        rest[0] = (2**27, *rest[0][1:])
    with pytest.raises(ValueError, match=r"2 images of 32768x32768 have more than 2\^31 - 1 pixels"):
        launch([(2, 2**15, 2**15, image[3]), *rest], attributes, "float32")
    if operator == "key_semantic_attention":
        rest[0] = (2**26, *rest[0][1:])
    made = launch([(1, 2**15, 2**15, image[3]), *rest], attributes, "float32")
    assert made.grid(1, 2**15, 2**15) == 2**26 * made.programs


@pytest.mark.parametrize("operator", GOOD)
def test_an_empty_batch_starts_nothing(run: Run, operator: str) -> None:
    (image, *rest), attributes = good(operator)
    empty = [image[:0], *(tensor[:0] if tensor.dtype == torch.int32 else tensor for tensor in rest)]
    expected = BY_TORCH_NAME[operator].torch_operator()(*empty, *attributes.values())
    result = run(operator, empty, attributes)
    assert result.shape == expected.shape and result.dtype == expected.dtype and result.numel() == 0


@pytest.mark.parametrize("operator", GOOD)
def test_layout_in_memory_does_not_matter(run: Run, operator: str) -> None:
    tensors, attributes = good(operator)
    turned = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in tensors]
    assert any(not tensor.is_contiguous() for tensor in turned)
    assert torch.equal(run(operator, turned, attributes), run(operator, tensors, attributes))
