from __future__ import annotations

import math

import numpy as np
import pytest

from agileir_export.parity.bisection import AFTER, block_psnr, first_broken

BLOCKS = tuple("abcdefg")


@pytest.mark.parametrize("broken", range(len(BLOCKS) + 1))
def test_finds_the_first_of_the_broken_blocks(broken: int) -> None:
    asked = []

    def found(block: str) -> np.ndarray:
        asked.append(block)
        return np.full((1, 2), 1.0 if BLOCKS.index(block) < broken else 1.1, np.float32)

    name = first_broken(BLOCKS, lambda block: np.ones((1, 2), np.float32), found, 60)
    assert name == (*BLOCKS, AFTER)[broken]
    assert len(asked) == 3  # of seven blocks: bisection, not a walk


def test_the_floor_decides() -> None:
    ones, off = np.ones((1, 2), np.float32), np.full((1, 2), 1.001, np.float32)  # 60 dB apart
    assert first_broken(("a",), lambda block: ones, lambda block: off, 59) == AFTER
    assert first_broken(("a",), lambda block: ones, lambda block: off, 61) == "a"


def test_features_are_judged_at_their_own_magnitude() -> None:
    features = np.array([[-4.0, 2.0]])
    assert block_psnr(features, features + 0.04) == pytest.approx(40)
    assert block_psnr(1000 * features, 1000 * features + 40) == pytest.approx(40)
    assert block_psnr(features, features) == math.inf
    assert block_psnr(0 * features, 0 * features + 0.1) == pytest.approx(20)  # nothing to compare with: peak 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_broken(bad: float) -> None:
    assert block_psnr(np.ones((2, 2)), np.array([[1, 1], [1, bad]])) == -math.inf
