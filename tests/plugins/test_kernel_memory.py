"""Which elements the interpreted kernels load and store, and how often: nothing outside of tensors, outputs once.

An access outside of all tensors is an error that `Interpreter.traffic` raises.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .cases import Group, Heads, group_tensors, heads_tensors, random_dictionary
from .interpreter import Interpreter

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")

ROWS = 32
"""Rows of similarities a program of the dictionary holds; `TACTICS` of its kernel."""

COLUMNS, FEWER_COLUMNS, SMALL = 256, 32, 256
"""Columns of similarities that it holds at once, and those of it in windows of up to so many tokens."""

QUERIES = 64
"""Queries of a program of the attention kernels; `TACTICS` of theirs."""


def assert_written_once(traffic: list[tuple[Tensor, Tensor]], scratch: int = 0) -> list[Tensor]:
    """The loads of every tensor, the output's last but for `scratch` tensors, which are stored to as a kernel likes."""
    *inputs, (_, stored) = traffic[: len(traffic) - scratch]
    assert (stored == 1).all()
    assert not any(stores.any() for _, stores in inputs)
    return [loads for loads, _ in traffic]


# Width 10 and 36 tokens, in 3 of 4 words, pad every block; a window of 16 has several blocks of queries.
HEADS = [Heads(2, 2, 1, 4, 1, 2, 10), Heads(1, 1, 2, 6, 3, 2, 8), Heads(1, 1, 2, 16, 8, 1, 12)]


@pytest.mark.parametrize("case", HEADS, ids=lambda case: f"window{case.window}")
def test_attention_loads_queries_once_and_keys_once_a_block(run: Interpreter, case: Heads) -> None:
    qkv, table = heads_tensors(case, dtype=torch.float16)
    dictionary = random_dictionary(case)
    attributes = {"window_size": case.window, "shift_size": case.shift, "num_heads": case.heads}
    channels, tokens = case.heads * case.width, case.window**2
    blocks = -(-tokens // QUERIES)
    windows = case.batch * case.rows * case.columns
    for operator, tensors in {
        "shifted_window_attention": [qkv, table],
        "key_semantic_attention": [qkv, dictionary, table],
    }.items():
        image, *sets, bias, output = assert_written_once(run.traffic(operator, tensors, attributes))
        assert (image[..., :channels] == 1).all() and (image[..., channels:] == blocks).all()
        assert all((words == case.heads).all() for words in sets)
        assert (bias.flatten(1).sum(1) == windows * tokens**2).all() and not output.any()


# 289 tokens take two blocks of columns, the second mostly padding.
@pytest.mark.parametrize(("window", "shift", "channels"), [(4, 1, 5), (6, 2, 33), (16, 8, 20), (17, 8, 3)])
def test_a_dictionary_loads_its_image_once_a_block(run: Interpreter, window: int, shift: int, channels: int) -> None:
    x = torch.ones(2, window, 2 * window, channels, dtype=torch.float16)
    attributes = {"window_size": window, "shift_size": shift, "top_k": window}
    image, output = assert_written_once(run.traffic("key_semantic_dictionary", [x], attributes))
    tokens = window**2
    as_row, as_column = -(-tokens // (FEWER_COLUMNS if tokens <= SMALL else COLUMNS)), -(-tokens // ROWS)
    assert (image == as_row + as_column).all() and not output.any()


@pytest.mark.parametrize(
    "case", [Group(2, 1, 2, 4, 1, 3, 10, 4, (3, 5)), Group(1, 2, 1, 8, 4, 2, 5, 3, (5, 5))], ids=["window4", "window8"]
)
def test_the_cascade_loads_its_input_and_the_group_before_once(run: Interpreter, case: Group) -> None:
    """And of the scratch nothing that it has not stored; it is not initialised."""
    attributes = {"window_size": case.window, "shift_size": case.shift}
    tensors = list(group_tensors(case, dtype=torch.float16))
    traffic = run.traffic("group_shifted_window_attention", tensors, attributes)
    x, *_, output, loaded = assert_written_once(traffic, scratch=1)
    assert (x == 1).all()
    assert (output[..., : -case.width] == 1).all() and not output[..., -case.width :].any()
    _, stored = traffic[-1]
    assert (stored[loaded > 0] > 0).all() and loaded.any()
