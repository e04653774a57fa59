import numpy as np
import pytest

from agileir_export.images.files import read_image
from agileir_export.images.resizing import pad_to_multiple, resize_bicubic
from agileir_export.parity.metrics import psnr_y

COUNTS = {"Set5": 5, "Set14": 13}
FLOORS = {2: 33.67, 3: 30.40, 4: 28.43}


def pairs(data_dir, name, scale):
    """(high resolution, cropped to a multiple of the scale; stored low resolution) of a set."""
    for path in sorted((data_dir / "test" / name / "HR").iterdir()):
        pixels = read_image(path).pixels
        height, width = (size // scale * scale for size in pixels.shape[1:])
        low = data_dir / "test" / name / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"
        yield pixels[:, :height, :width], read_image(low).pixels


def naive(signal, new_size):
    """One axis of imresize, written out from the definition in plain Python."""
    size, scale = len(signal), new_size / len(signal)
    stretch = min(scale, 1)

    def kernel(x):
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0

    result = []
    for new in range(new_size):
        centre = (new + 0.5) / scale - 0.5
        total = weight_sum = 0
        for position in range(-8 * size, 9 * size):
            weight = kernel((centre - position) * stretch)
            mirrored = position % (2 * size)
            mirrored = mirrored if mirrored < size else 2 * size - 1 - mirrored
            total += weight * signal[mirrored]
            weight_sum += weight
        result.append(total / weight_sum)
    return result


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_shrinking_equals_matlab_bit_for_bit(data_dir, name, scale):
    count = 0
    for high, low in pairs(data_dir, name, scale):
        np.testing.assert_array_equal(resize_bicubic(high, 1 / scale, quantize=True), low)
        count += 1
    assert count == COUNTS[name]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_floor_of_set5(data_dir, scale):
    scores = [
        psnr_y(resize_bicubic(low, scale, quantize=True), high, scale) for high, low in pairs(data_dir, "Set5", scale)
    ]
    assert np.mean(scores) == pytest.approx(FLOORS[scale], abs=0.005)


@pytest.mark.parametrize(("size", "new_size"), [(12, 4), (13, 7), (5, 20), (7, 9), (2, 1), (1, 3)])
def test_each_axis_follows_the_definition(size, new_size):
    signal = np.random.default_rng(0).random(size)
    wanted = naive(signal, new_size)
    columns = resize_bicubic(signal[None, :], (1, new_size))
    np.testing.assert_allclose(columns[0], wanted, atol=1e-12)
    rows = resize_bicubic(signal[:, None], (new_size, 1))
    np.testing.assert_allclose(rows[:, 0], wanted, atol=1e-12)


def test_a_single_bright_sample_shows_the_kernel():
    signal = np.zeros((1, 9))
    signal[0, 4] = 1
    # at x2 new samples lie a quarter off the old ones: Keys' cubic at 1.75, 1.25, 0.75, 0.25
    wanted = np.array([-0.0234375, -0.0703125, 0.2265625, 0.8671875])
    wide = resize_bicubic(signal, (1, 18))[0]
    np.testing.assert_allclose(wide[5:9], wanted, atol=1e-15)
    np.testing.assert_allclose(wide[9:13], wanted[::-1], atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_leading_axes_are_kept(dtype):
    batch = np.random.default_rng(0).random((2, 3, 12, 10)).astype(dtype)
    small = resize_bicubic(batch, 0.5)
    assert (small.dtype, small.shape) == (dtype, (2, 3, 6, 5))
    np.testing.assert_allclose(small[1, 2], resize_bicubic(batch[1, 2], 0.5), atol=1e-7)


def test_float32_agrees_with_float64():
    pixels = np.random.default_rng(0).random((3, 40, 50))
    single = resize_bicubic(pixels.astype(np.float32), 0.25)
    np.testing.assert_allclose(single, resize_bicubic(pixels, 0.25), atol=1e-6)


def test_sizes_are_rounded_up_but_not_by_the_rounding_of_the_factor():
    assert resize_bicubic(np.zeros((7, 10)), 0.5).shape == (4, 5)
    for size in range(3, 600, 3):
        assert resize_bicubic(np.zeros((size, 1)), (size // 3, 1)).shape == (size // 3, 1)
        assert resize_bicubic(np.zeros((1, size)), 1 / 3).shape == (1, size // 3)


def test_the_size_and_the_factor_mean_the_same():
    pixels = np.random.default_rng(0).random((24, 36))
    np.testing.assert_array_equal(resize_bicubic(pixels, 1 / 4), resize_bicubic(pixels, (6, 9)))


def test_quantized_values_are_8_bit_steps_in_range():
    pixels = np.random.default_rng(0).choice([-0.2, 0, 1, 1.2], (20, 20))
    steps = resize_bicubic(pixels, 3, quantize=True) * 255
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-12)
    assert (steps.min(), steps.max()) == (0, 255)
    # unquantised, the filter overshoots
    assert resize_bicubic(pixels, 3).max() > 1.2


def test_quantized_passes_round_half_up():
    steps = np.array([[0.0, 1.0], [2.0, 3.0]]) / 255
    # a 2 x 2 mean is symmetric here: rows give 1 and 2, then 1.5, which is rounded to 2
    assert resize_bicubic(steps, 0.5, quantize=True) * 255 == 2


def test_the_input_is_left_alone():
    pixels = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    before = pixels.copy()
    for quantize in (False, True):
        resize_bicubic(pixels, 0.5, quantize=quantize)
        resize_bicubic(pixels, 1, quantize=quantize)[:] = 0
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("pixels", "target", "message"),
    [
        (np.zeros((4, 4), np.uint8), 2, "uint8"),
        (np.zeros(4), 2, r"\[4\]"),
        (np.zeros((0, 4)), 2, r"\[0, 4\]"),
        (np.zeros((4, 4)), 0, "factor"),
        (np.zeros((4, 4)), -1, "factor"),
        (np.zeros((4, 4)), float("nan"), "factor"),
        (np.zeros((4, 4)), float("inf"), "factor"),
        (np.zeros((4, 4)), (0, 4), "0 x 4"),
    ],
)
def test_resize_refuses(pixels, target, message):
    with pytest.raises(ValueError, match=message):
        resize_bicubic(pixels, target)


@pytest.mark.parametrize("multiple", [1, 2, 7, 8, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 16), (9, 5), (17, 4)])
def test_padding_by_the_definition(size, multiple):
    images = np.random.default_rng(0).random((2, 3, *size)).astype(np.float32)
    padded, original = pad_to_multiple(images, multiple)
    assert original == size
    assert padded.dtype == np.float32

    def sources(length):
        target = -(-length // multiple) * multiple
        mirror = target - length < length
        return [i if i < length else (2 * (length - 1) - i if mirror else length - 1) for i in range(target)]

    wanted = images[:, :, sources(size[0])][:, :, :, sources(size[1])]
    np.testing.assert_array_equal(padded, wanted)


def test_padding_mirrors_without_repeating_the_edge():
    images = np.array([[[[1, 2, 3, 4, 5]]]], np.float32)
    assert pad_to_multiple(images, 9)[0][0, 0, 0].tolist() == [1, 2, 3, 4, 5, 4, 3, 2, 1]
    assert pad_to_multiple(images, 10)[0][0, 0, 9].tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 5, 5]


@pytest.mark.parametrize(("shape", "multiple"), [((3, 4, 4), 8), ((1, 3, 0, 4), 8), ((1, 3, 4, 4), 0)])
def test_padding_refuses(shape, multiple):
    with pytest.raises(ValueError, match="must be"):
        pad_to_multiple(np.zeros(shape, np.float32), multiple)
