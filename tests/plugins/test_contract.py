"""What holds of an operator whatever its arguments: passes, batches, layouts, tracing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from agileir_export.plugins import windows as window_arithmetic
from agileir_export.plugins.catalogue import BY_TORCH_NAME

from .cases import (
    EVERY,
    SHIFTED,
    Group,
    Heads,
    assert_close,
    attention,
    gradients,
    group_attention,
    group_tensors,
    heads_tensors,
    integers,
    key_attention,
    make_dictionary,
    random_dictionary,
    seeded,
)


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


@EVERY
@pytest.mark.parametrize("per_pass", [1, 5])
def test_several_passes_give_the_same(name: str, per_pass: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 windows a pass: of 12 windows the last pass has 2, and passes straddle the images."""
    operator, arguments = every_operator()[name]
    leaves = [t.requires_grad_() for t in arguments if isinstance(t, Tensor) and t.is_floating_point()]

    def results() -> list[Tensor]:
        output = operator(*arguments)
        return [output, *(gradients(lambda *_: output, leaves) if output.requires_grad else ())]

    passes: list[list[slice]] = []
    original = window_arithmetic.window_slices

    def counted(windows: Tensor, rows: int, itemsize: int) -> list[slice]:
        parts = list(original(windows, rows, itemsize))
        passes.append(parts)
        return parts

    expected = results()
    rows = {"group": 1 * 4, "window": 2 * 4, "dictionary": 4 * 8, "key": 2 * 4}[name]
    monkeypatch.setattr(window_arithmetic, "ON_CPU", per_pass * rows * 81)
    for module in ("attention", "group_shifted_window_attention.operator", "key_semantic_dictionary.operator"):
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
        for tensor in arguments:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.requires_grad_()
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
    assert_close(gradients(compiled, [leaf])[0], gradients(lambda x: operator(x, *rest), [leaf])[0], 1e-6)


ARGUMENTS = {
    "group_shifted_window_attention": ("x qkv_weight qkv_bias q_dw_weight q_dw_bias bias_table window_size shift_size"),
    "shifted_window_attention": "qkv bias_table window_size shift_size num_heads",
    "key_semantic_dictionary": "x window_size shift_size top_k",
    "key_semantic_attention": "qkv dictionary bias_table window_size shift_size num_heads",
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_argument_names_and_order(name: str) -> None:
    schema = BY_TORCH_NAME[name].torch_operator().default._schema
    assert [argument.name for argument in schema.arguments] == ARGUMENTS[name].split()
    assert [str(result.type) for result in schema.returns] == ["Tensor"]


def test_masks_of_a_pass_are_those_of_its_windows_and_no_others_are_kept() -> None:
    """2 images of 12 windows; passes begin inside an image and straddle both."""
    image = torch.zeros(2, 12, 16, 1)
    masks = window_arithmetic.PassMasks(image, 4, 1)
    whole = window_arithmetic.shift_mask(12, 16, 4, 1, image)
    for part in (slice(0, 5), slice(5, 14), slice(23, 24)):
        expected = whole[torch.arange(part.start, part.stop) % 12]
        actual = masks(part)
        assert torch.equal(actual, expected)
    held = [value for value in vars(masks).values() if isinstance(value, Tensor)]
    assert sum(value.numel() for value in held) == 12 * 16  # one region a token, no 16 x 16 logits
    assert window_arithmetic.PassMasks(image, 4, 0)(slice(0, 3)) is None
