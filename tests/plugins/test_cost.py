"""The cost sheet against numbers computed by hand, and against the operators that the registry knows."""

from __future__ import annotations

import pytest

from agileir_export.plugins import OPERATORS
from agileir_export.plugins.cost import Cost


def test_attention_by_hand() -> None:
    # One 8x8 window, C = 4, 2 heads of 2: 64 x 64 logits a head. q k^T: 2 heads x 4096 x 2 x 2 operations, as much for
    # the values. In float16: 64 x 12 numbers of qkv, 225 x 2 of the table, 64 x 4 of the output.
    found = OPERATORS["ShiftedWindowAttention"].cost(
        [(1, 8, 8, 12), (225, 2)],
        {"window_size": 8, "shift_size": 0, "num_heads": 2},
        2,
    )
    assert found == Cost(bytes_read=2436, bytes_written=512, flops=65536, exponentials=8192)
    assert found.bytes_moved == 2948


def test_key_attention_adds_the_dictionary() -> None:
    # Two 4x4 windows in float32, C = 6, 3 heads; 32 rows of one word.
    found = OPERATORS["KeySemanticAttention"].cost(
        [(1, 4, 8, 18), (2, 16, 1), (49, 3)],
        {"window_size": 4, "shift_size": 0, "num_heads": 3},
        4,
    )
    assert found == Cost(
        bytes_read=4 * (576 + 147) + 4 * 32, bytes_written=4 * 192, flops=4 * 32 * 16 * 6, exponentials=1536
    )


def test_dictionary_by_hand() -> None:
    # Two images of one 4x4 window, C = 3: 32 x 16 similarities of 3 products; one word a row.
    found = OPERATORS["KeySemanticDictionary"].cost([(2, 4, 4, 3)], {"window_size": 4, "shift_size": 1, "top_k": 5}, 2)
    assert found == Cost(bytes_read=192, bytes_written=128, flops=3072, similarities=512)


def test_group_attention_by_hand() -> None:
    # One 2x2 window, G = 2, dk = 1, dv = 3, 3x3 filter. A pixel and group: 5 x 3 projected, 9 taps, 4 logits of 1,
    # 4 values of 3: 15 + 9 + 4 + 12 = 40 products.
    shapes = [(1, 2, 2, 6), (2, 5, 3), (2, 5), (2, 1, 3, 3), (2, 1), (9, 2)]
    found = OPERATORS["GroupShiftedWindowAttention"].cost(shapes, {"window_size": 2, "shift_size": 1}, 4)
    assert found.flops == 4 * 2 * 80
    assert found.exponentials == 4 * 2 * 4
    assert found.bytes_read == 4 * (24 + 30 + 10 + 18 + 2 + 18)
    assert found.bytes_written == 96


def test_a_call_is_bound_by_what_is_slower() -> None:
    work = Cost(bytes_read=600, bytes_written=400, flops=5000)
    assert work.least_seconds(bytes_per_second=100, flops_per_second=1000) == 10
    assert work.least_seconds(bytes_per_second=1000, flops_per_second=1000) == 5
    work = Cost(bytes_read=10, bytes_written=0, flops=10, exponentials=700, similarities=300)
    assert work.least_seconds(1000, 1000, exponentials_per_second=100, integers_per_second=100) == 7
    assert work.least_seconds(1000, 1000, exponentials_per_second=1000, integers_per_second=100) == 6


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)
def test_every_operator_has_a_cost_and_a_call(operator) -> None:
    assert operator.calls
    for call in operator.calls:
        assert call.operator == operator.torch_name
        integer_inputs = tuple(index for index, name in enumerate(operator.inputs) if name in operator.integer_tensors)
        assert call.integer_inputs == integer_inputs
        assert tuple(call.attributes) == operator.attributes
        window = call.attributes["window_size"]
        shapes = call.shapes(1, 2 * window, window)
        assert len(shapes) == len(operator.inputs)
        twice = operator.cost(call.shapes(2, 2 * window, window), call.attributes, 2)
        once = operator.cost(shapes, call.attributes, 2)
        assert twice.flops == 2 * once.flops > 0
        assert twice.bytes_written == 2 * once.bytes_written > 0
