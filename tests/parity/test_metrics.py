import json
import math

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from agileir_export.json_form import json_number
from agileir_export.parity.metrics import (
    key_agreement,
    luma,
    max_steps,
    nonfinite,
    psnr,
    psnr_y,
    ssim_y,
)

PAIRWISE = [psnr, max_steps, lambda a, b: psnr_y(a, b, 0), lambda a, b: ssim_y(a, b, 0)]
PAIRWISE_NAMES = ["psnr", "max_steps", "psnr_y", "ssim_y"]
WORST = dict(zip(PAIRWISE_NAMES, [-math.inf, math.inf, -math.inf, -math.inf], strict=True))


def noisy(channels=3, size=(24, 30), amount=0.05, seed=0):
    """A random image on the 8-bit grid and a disturbed copy, in range."""
    random = np.random.default_rng(seed)
    a = random.integers(0, 256, (channels, *size)) / 255
    b = np.clip(np.rint((a + amount * random.standard_normal(a.shape)) * 255), 0, 255) / 255
    return a.astype(np.float32), b.astype(np.float32)


def y_of(image):
    return rgb2ycbcr(image.transpose(1, 2, 0).astype(np.float64))[..., 0]


# PSNR


def test_psnr_of_a_known_error():
    a = np.full((3, 4, 4), 0.5, np.float32)
    assert psnr(a, a + np.float32(0.125)) == pytest.approx(-20 * math.log10(0.125), abs=1e-12)
    b = a.copy()
    b[0, 0, 0] += 0.25  # one of 48 values
    assert psnr(a, b) == pytest.approx(10 * math.log10(48 / 0.0625), abs=1e-12)


def test_psnr_agrees_with_scikit_image():
    a, b = noisy()
    wanted = peak_signal_noise_ratio(a.astype(float), b.astype(float), data_range=1)
    assert psnr(a, b) == pytest.approx(wanted, abs=1e-9)


def test_psnr_clamps_first():
    a = np.array([[[-5, 0.25, 7]]], np.float32)
    b = np.array([[[0, 0.25, 1]]], np.float32)
    assert psnr(a, b) == math.inf
    assert psnr(a * 255, b * 255, peak=255) == math.inf
    assert psnr(a * 255, b * 0, peak=255) == pytest.approx(10 * math.log10(3 / (1 + 0.25**2)), abs=1e-9)


def test_psnr_does_not_follow_the_data():
    a = np.full((1, 2, 2), 0.25, np.float32)
    assert psnr(a, a * 0) == pytest.approx(20 * math.log10(4), abs=1e-12)


def test_psnr_sees_differences_far_below_float32_sums():
    a = np.full((1, 1000, 1000), 0.5, np.float32)
    b = np.nextafter(a, np.float32(1))
    assert psnr(a, b) == pytest.approx(-20 * math.log10(2**-24), abs=1e-6)


def test_identical_images_are_infinitely_good():
    a, _ = noisy()
    assert psnr(a, a.copy()) == math.inf
    assert psnr_y(a, a.copy(), 2) == math.inf
    assert ssim_y(a, a.copy(), 2) == pytest.approx(1, abs=1e-12)
    assert max_steps(a, a.copy()) == 0


# What all pairwise metrics have in common


@pytest.mark.parametrize("metric", PAIRWISE, ids=PAIRWISE_NAMES)
def test_a_batch_is_as_good_as_its_worst_image(metric):
    good = noisy(amount=0.01, seed=1)
    bad = noisy(amount=0.2, seed=2)
    batch = [np.stack(pair) for pair in zip(good, bad, good, strict=True)]
    assert metric(*batch) == metric(*bad) != metric(*good)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["first", "second", "both"])
@pytest.mark.parametrize(("name", "metric"), list(zip(PAIRWISE_NAMES, PAIRWISE, strict=True)))
def test_a_value_that_is_no_number_never_scores(name, metric, side, value):
    a = np.stack([noisy()[0]] * 2)
    b = a.copy()
    for image in {"first": [a], "second": [b], "both": [a, b]}[side]:
        image[1, 2, 5, 6] = value
    assert metric(a, b) == WORST[name]


def test_a_value_that_is_no_number_counts_inside_the_border_too():
    a, _ = noisy()
    b = a.copy()
    b[0, 0, 0] = np.nan
    assert psnr_y(a, b, 4) == -math.inf
    assert ssim_y(a, b, 4) == -math.inf


@pytest.mark.parametrize("metric", PAIRWISE, ids=PAIRWISE_NAMES)
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match=r"\[3, 16, 16\].*\[1, 16, 16\]"):
        metric(np.zeros((3, 16, 16)), np.zeros((1, 16, 16)))


@pytest.mark.parametrize("shape", [(16, 16), (1, 1, 3, 16, 16), (3, 0, 16), (0, 3, 16, 16)])
@pytest.mark.parametrize("metric", PAIRWISE, ids=PAIRWISE_NAMES)
def test_shapes_must_be_images(metric, shape):
    with pytest.raises(ValueError, match="must be"):
        metric(np.zeros(shape), np.zeros(shape))


# Luma


def test_luma_of_known_colours():
    colours = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    y = luma(colours.T[:, None])
    assert y.shape == (1, 1, 5)
    np.testing.assert_allclose(y[0, 0], [16, 235, 81.481, 144.553, 40.966], atol=1e-12)


def test_luma_agrees_with_scikit_image_and_takes_batches():
    a, b = noisy()
    y = luma(np.stack([a, b]))
    assert y.shape == (2, 1, 24, 30)
    np.testing.assert_allclose(y[0, 0], y_of(a), atol=1e-9)
    np.testing.assert_allclose(y[1, 0], y_of(b), atol=1e-9)


def test_grey_is_its_own_luma():
    np.testing.assert_allclose(luma(np.array([[[0, 0.5, 1]]])), [[[0, 127.5, 255]]])


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4), (1, 4, 4, 4)])
def test_luma_refuses(shape):
    with pytest.raises(ValueError, match="luma needs"):
        luma(np.zeros(shape))


@pytest.mark.parametrize("border", [0, 3])
def test_psnr_y_agrees_with_scikit_image(border):
    a, b = noisy()
    inside = (slice(border, 24 - border), slice(border, 30 - border))
    wanted = peak_signal_noise_ratio(y_of(a)[inside], y_of(b)[inside], data_range=255)
    assert psnr_y(a, b, border) == pytest.approx(wanted, abs=1e-6)


def test_psnr_y_leaves_the_border_out():
    a = np.full((3, 8, 8), 0.5, np.float32)
    b = a.copy()
    b[:, 0], b[:, -1], b[:, :, 0], b[:, :, -1] = 0, 0, 0, 0
    assert psnr_y(a, b, 0) < 11
    assert psnr_y(a, b, 1) == math.inf


def test_psnr_y_rounds_images_to_8_bits_and_clamps_them():
    a = np.full((1, 4, 4), 100 / 255, np.float32)
    assert psnr_y(a, a + np.float32(0.4 / 255), 0) == math.inf
    one_step = psnr_y(a, a + np.float32(0.6 / 255), 0)
    assert one_step == pytest.approx(20 * math.log10(255), abs=1e-9)
    assert psnr_y(a * 0 + 1, a * 0 + 3, 0) == math.inf


def test_psnr_y_does_not_round_luma():
    black = np.zeros((3, 4, 4), np.float32)
    blue = black.copy()
    blue[2] = 1 / 255  # 24.966 / 255 = 0.098 steps of luma
    assert psnr_y(black, blue, 0) == pytest.approx(20 * math.log10(255 / (24.966 / 255)), abs=1e-6)


# SSIM


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("border", [0, 4])
def test_ssim_agrees_with_scikit_image(channels, border):
    a, b = noisy(channels)
    planes = [y_of(a), y_of(b)] if channels == 3 else [a[0] * 255.0, b[0] * 255.0]
    inside = (slice(border, 24 - border), slice(border, 30 - border))
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    wanted = structural_similarity(*(plane[inside].astype(np.float64) for plane in planes), **how)
    assert ssim_y(a, b, border) == pytest.approx(wanted, abs=1e-6)


def test_ssim_of_two_flat_images():
    a, b = (np.full((1, 11, 11), value / 255, np.float32) for value in (100, 150))
    c1 = (0.01 * 255) ** 2
    wanted = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim_y(a, b, 0) == pytest.approx(wanted, abs=1e-9)


def test_ssim_of_an_inverted_image_is_negative():
    a, _ = noisy(1)
    assert -1 <= ssim_y(a, 1 - a, 0) < -0.5


@pytest.mark.parametrize(
    ("metric", "size", "border"),
    [(ssim_y, 10, 0), (ssim_y, 14, 2), (psnr_y, 8, 4), (psnr_y, 8, -1)],
)
def test_a_border_must_leave_something(metric, size, border):
    images = np.zeros((3, size, 30), np.float32)
    with pytest.raises(ValueError, match=f"border of {border}"):
        metric(images, images, border)


def test_the_smallest_images():
    images = np.zeros((3, 11, 11), np.float32)
    assert ssim_y(images, images, 0) == 1
    assert psnr_y(images[:, :3, :3], images[:, :3, :3], 1) == math.inf


# The rest


def test_max_steps_is_neither_rounded_nor_clamped():
    a = np.zeros((2, 1, 3, 3), np.float32)
    b = a.copy()
    b[1, 0, 2, 2] = -2.0
    b[0, 0, 0, 0] = 0.3 / 255
    assert max_steps(a, b) == 510
    assert max_steps(a[:1], b[:1]) == pytest.approx(0.3, abs=1e-6)
    assert max_steps(b[:1], a[:1]) == pytest.approx(0.3, abs=1e-6)


def test_nonfinite_counts():
    values = np.array([0, np.nan, np.inf, -np.inf, 1e38], np.float32)
    assert nonfinite(values) == 3
    assert nonfinite(values[[0, 4]]) == 0
    assert type(nonfinite(values)) is int


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (np.float32(0.5), 0.5),
        (np.float64(-np.inf), "-inf"),
        (3, 3.0),
    ],
)
def test_json_number(value, wanted):
    result = json_number(value)
    assert result == wanted
    assert type(result) is type(wanted)
    assert json.loads(json.dumps(result, allow_nan=False)) == wanted


def test_key_agreement_is_dices_coefficient():
    a = [np.array([[0b1110]], np.int32), np.array([[0b0011]], np.int32)]
    b = [np.array([[0b0111]], np.int32), np.array([[0b1100]], np.int32)]
    assert key_agreement(a, a) == 1.0
    assert key_agreement(a, b) == 2 * 2 / (5 + 5)
    assert key_agreement(a[1:], b[1:]) == 0.0
