"""The tile plan and its weights, for whatever sizes: everything covered, on the grid, weights that sum to one."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from agileir_export.restore.tiles import Cuts, cut, plan_tiles

SHAPES = [
    (multiple, multiple * tile, multiple * overlap)
    for multiple, tile, overlap in product((1, 3, 8, 16), (2, 3, 5, 16), (0, 1, 2, 8))
    if overlap < tile
]


def lengths(multiple: int, tile: int) -> list[int]:
    """Below, at and above one tile, and many of them; on the grid and off it."""
    sides = {1, multiple, tile - 1, tile, tile + 1, 2 * tile - multiple, 2 * tile + 1, 3 * tile + 5, 7 * tile - 1}
    return sorted(side for side in sides if side > 0)


@pytest.mark.parametrize(("multiple", "tile", "overlap"), SHAPES)
def test_every_pixel_is_covered_on_the_grid(multiple: int, tile: int, overlap: int) -> None:
    for length in lengths(multiple, tile):
        cuts = cut(length, tile, overlap, multiple)
        assert cuts.tile <= tile and cuts.tile % multiple == 0
        assert all(origin % multiple == 0 for origin in cuts.origins)
        assert cuts.origins[0] == 0
        assert cuts.origins[-1] + cuts.tile == length + -length % multiple  # no more padding than the whole has
        shared = [one + cuts.tile - two for one, two in pairwise(cuts.origins)]
        assert all(overlap <= each < cuts.tile for each in shared)
        assert len(cuts.origins) == (1 if length <= tile else max(2, -((overlap - length) // (tile - overlap))))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("multiple", "tile", "overlap"), SHAPES)
def test_weights_sum_to_one_exactly(multiple: int, tile: int, overlap: int, scale: int) -> None:
    for length in lengths(multiple, tile):
        cuts = cut(length, tile, overlap, multiple)
        total = summed(cuts, scale)
        assert total.dtype == np.float32
        assert np.array_equal(total, np.ones(length * scale))


def summed(cuts: Cuts, scale: int) -> Any:
    total = np.zeros(cuts.length * scale, np.float32)
    for index in range(len(cuts.origins)):
        start, stop = cuts.span(index)
        weights = cuts.weights(index, scale)
        assert weights.min() >= 0
        total[start * scale : stop * scale] += weights
    return total


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("overlap", "unused"), [(16, 6), (32, 12), (64, 24)])
def test_what_lies_near_an_edge_within_the_picture_is_not_used(overlap: int, unused: int, scale: int) -> None:
    """Three eighths of the overlap on either side, and no edge of the picture."""
    cuts = cut(1000, 128, overlap, 8)
    for index in range(len(cuts.origins)):
        weights = cuts.weights(index, scale)
        first, last = index == 0, index == len(cuts.origins) - 1
        assert (weights[: unused * scale] == first).all()
        assert (weights[-unused * scale :] == last).all()


def test_a_ramp_lies_in_the_middle_of_the_overlap() -> None:
    cuts = cut(48, 32, 16, 8)
    assert (cuts.origins, cuts.seams) == ((0, 16), (24.0,))
    expected = [1] * 22 + [0.875, 0.625, 0.375, 0.125] + [0] * 6
    assert cuts.weights(0).tolist() == expected
    assert cuts.weights(1).tolist() == expected[::-1]


def test_tiles_are_no_larger_than_they_must_be_unless_the_runner_wants_them() -> None:
    assert cut(264, 256, 16, 8) == Cuts(264, 144, (0, 120))
    assert cut(264, 256, 16, 8, least=256) == Cuts(264, 256, (0, 8))
    assert cut(100, 256, 16, 8, least=256) == Cuts(100, 256, (0,))
    assert cut(100, 256, 16, 8, least=64) == Cuts(100, 104, (0,))


@pytest.mark.parametrize("wrong", [(0, 16, 8, 8), (9, 12, 8, 8), (9, 16, 4, 8), (17, 16, 16, 8), (9, 16, 8, 8, 24)])
def test_sizes_that_do_not_go_together(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        cut(*wrong)


def test_a_plan_says_what_it_costs() -> None:
    plan = plan_tiles((100, 48), (32, 64), 16, 8)
    assert str(plan) == "6 tiles of 32x48, overlap 16"
    assert plan.pixels == 6 * 32 * 48
