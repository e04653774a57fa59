"""What is hidden under alpha 0 must not reach what is seen."""

import numpy as np
import pytest

from agileir_export.images.transparency import visible_colour


def nearest_by_search(pixels, alpha):
    """For every hidden pixel the colours of all visible pixels at the least chessboard distance."""
    visible = np.argwhere(alpha[0] > 0)
    for row, column in np.argwhere(alpha[0] <= 0):
        distances = np.abs(visible - (row, column)).max(1)
        near = visible[distances == distances.min()]
        yield row, column, pixels[:, near[:, 0], near[:, 1]].T


@pytest.mark.parametrize("seed", range(20))
def test_a_nearest_visible_colour_is_taken(seed):
    generator = np.random.default_rng(seed)
    size = generator.integers(1, 15, 2)
    pixels = generator.random((3, *size), np.float32)
    alpha = (generator.random((1, *size)) * (generator.random((1, *size)) < 0.2)).astype(np.float32)
    alpha[0, 0, 0] = 0.5
    filled = visible_colour(pixels, alpha)
    np.testing.assert_array_equal(filled[:, alpha[0] > 0], pixels[:, alpha[0] > 0])
    for row, column, candidates in nearest_by_search(pixels, alpha):
        assert (filled[:, row, column] == candidates).all(1).any()


def test_the_hidden_colour_does_not_matter_and_the_input_stays():
    generator = np.random.default_rng(0)
    pixels = generator.random((3, 30, 40), np.float32)
    alpha = (generator.random((1, 30, 40)) < 0.01).astype(np.float32)
    others = np.where(alpha > 0, pixels, generator.random((3, 30, 40), np.float32))
    before = others.copy()
    np.testing.assert_array_equal(visible_colour(pixels, alpha), visible_colour(others, alpha))
    np.testing.assert_array_equal(others, before)


@pytest.mark.parametrize("alpha", [None, 0.0, 1 / 65535, 1.0])
def test_pixels_are_untouched_where_nothing_or_all_is_hidden(alpha):
    pixels = np.random.default_rng(0).random((1, 4, 5), np.float32)
    planes = None if alpha is None else np.full((1, 4, 5), alpha, np.float32)
    assert visible_colour(pixels, planes) is pixels


def test_a_large_picture_with_one_visible_pixel_takes_no_time():
    alpha = np.zeros((1, 1500, 1000), np.float32)
    alpha[0, 0, 0] = 1
    pixels = np.zeros((3, 1500, 1000), np.float32)
    pixels[:, 0, 0] = 0.5
    assert (visible_colour(pixels, alpha) == 0.5).all()
