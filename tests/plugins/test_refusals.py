"""Arguments that the operators refuse, with the numbers in the message."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from agileir_export.plugins.dispatch import plan_kernel
from agileir_export.plugins.launch import NoKernel

from .cases import EVERY, attention, group_attention, key_attention, make_dictionary


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


OPERATORS = {"group": group_attention, "window": attention, "dictionary": make_dictionary, "key": key_attention}
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
        transposed, expanded = (heads, 49), (heads, 16, 16)
        shapes = {"rows": (48, heads), "columns": (49, heads + 1), "transposed": transposed, "expanded": expanded}
        for label, shape in shapes.items():
            words = f"bias_table 49 {heads} {' '.join(map(str, shape))}"
            add(name, f"table-{label}", words, bias_table=ones(shape))
        add(name, "mixed-types", "float32 float16", bias_table=ones(49, heads, dtype=torch.float16))
        add(name, "integer-table", "float32 int32", bias_table=ones(49, heads, dtype=torch.int32))
        add(name, "mixed-devices", "cpu meta", bias_table=ones(49, heads, device="meta"))

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
    nothing = {"q_dw_weight": ones(3, 0, 3, 5), "q_dw_bias": ones(3, 0)}
    add("group", "no-key-width", "0 2", qkv_weight=ones(3, 2, 2), qkv_bias=ones(3, 2), **nothing)
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
def test_refusal_names_operator_and_numbers(name: str, changes: dict[str, Any], words: list[str]) -> None:
    arguments = valid(name) | changes
    with pytest.raises(ValueError) as refusal:
        OPERATORS[name](**arguments)
    message = str(refusal.value)
    full_name = OPERATORS[name].default.name().removeprefix("agileir::")
    for word in (full_name, *words):
        assert re.search(rf"(?<![\w-]){word}(?!\d)", message), f"no {word!r} in: {message}"


def plan(name: str, arguments: dict[str, Any]) -> Any:
    """What CUDA tensors go through first: what a kernel is planned for is never seen by the refusals above."""
    pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
    schema = OPERATORS[name].default._schema
    given = [arguments[argument.name] for argument in schema.arguments]
    tensors = [value for value in given if isinstance(value, Tensor)]
    numbers = {key: value for key, value in arguments.items() if isinstance(value, int)}
    return plan_kernel(schema.name.removeprefix("agileir::"), tensors, numbers)


@EVERY
def test_a_kernel_is_planned_for_what_is_accepted(name: str) -> None:
    assert plan(name, valid(name)).window_size == 4


@pytest.mark.parametrize(
    ("name", "changes"),
    # Devices are compared before anything is planned, see test_dispatch.py.
    [pytest.param(*case.values[:2], id=case.id) for case in refusals() if not case.id.endswith("mixed-devices")],
)
def test_no_kernel_is_planned_for_what_is_refused(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(NoKernel):
        plan(name, valid(name) | changes)
