import cv2
import numpy as np
import pytest
from scipy import ndimage

from segda.transforms import RECIPES
from segda.transforms.operations import AddGaussianNoise, LinearContrast, Multiply, ScaleCrop, build_transforms

NUM_DRAWS = 300


def _step(recipe, kind, *, height=32, width=40):
    """Return the transform that a recipe builds for one of its steps."""
    transforms = build_transforms(RECIPES[recipe], height=height, width=width, cropping=False)
    (found,) = [transform for transform in transforms if type(transform).__name__ == kind]
    return found


def _draws(transform, name):
    values = []
    for seed in range(NUM_DRAWS):
        transform.set_random_seed(seed)
        values.append(transform.get_params()[name])
    return values


def _image(seed=0, *, size=(32, 40)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def _quantize(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _assert_fills(values, low, high):
    values = np.asarray(values)
    assert low <= values.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < values.max() <= high


@pytest.mark.parametrize(("recipe", "low", "high"), [("aug3", 1, 2), ("aug5", 1, 2), ("aug2", 0, 3), ("aug4", 0, 3)])
def test_blur_draws_sigma_from_its_range(recipe, low, high):
    blur = _step(recipe, "GaussianBlur")
    sigmas = []
    for seed in range(NUM_DRAWS):
        blur.set_random_seed(seed)
        kernel = blur.get_params_dependent_on_data({}, {})["kernel"]
        middle = len(kernel) // 2
        # Neighbours of a Gaussian: k(0) / k(1) = exp(1 / (2 sigma^2)); one tap alone stands for "less than 0.29 px".
        sigmas.append(np.sqrt(0.5 / np.log(kernel[middle] / kernel[middle + 1])) if middle else 0.0)
    _assert_fills(sigmas, low, high)


def test_blur_is_a_gaussian_filter_of_the_drawn_sigma():
    blur, image = _step("aug3", "GaussianBlur"), _image()
    for seed in range(5):
        blur.set_random_seed(seed)
        result = blur(image=image)["image"]
        kernel = blur.get_applied_params()["kernel"]
        middle = len(kernel) // 2
        sigma = np.sqrt(0.5 / np.log(kernel[middle] / kernel[middle + 1]))
        reference = ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="mirror", truncate=4)
        assert np.abs(result - reference).max() < 1.5


@pytest.mark.parametrize("recipe", ["aug4", "aug5"])
def test_pixel_steps_draw_from_the_printed_ranges(recipe):
    _assert_fills(_draws(_step(recipe, "LinearContrast"), "alpha"), 0.75, 1.5)
    _assert_fills(_draws(_step(recipe, "AddGaussianNoise"), "std"), 0, 0.05 * 255)
    _assert_fills([factor for factors in _draws(_step(recipe, "Multiply"), "factors") for factor in factors], 0.8, 1.2)


@pytest.mark.parametrize("recipe", ["aug4", "aug5"])
def test_half_of_the_images_get_draws_per_channel(recipe):
    noisy = sum(channels == 3 for channels in _draws(_step(recipe, "AddGaussianNoise"), "channels"))
    multiplied = sum(len(factors) == 3 for factors in _draws(_step(recipe, "Multiply"), "factors"))
    assert 0.4 * NUM_DRAWS < noisy < 0.6 * NUM_DRAWS
    assert 0.4 * NUM_DRAWS < multiplied < 0.6 * NUM_DRAWS


@pytest.mark.parametrize("alpha", [0.75, 1.0, 1.5])
def test_linear_contrast_stretches_around_127(alpha):
    image = _image()
    result = LinearContrast(alpha=(alpha, alpha))(image=image)["image"]
    np.testing.assert_array_equal(result, _quantize(127 + alpha * (image.astype(np.float64) - 127)))


@pytest.mark.parametrize("per_channel", [0.0, 1.0])
def test_multiply_scales_each_channel_by_its_factor(per_channel):
    multiply, image = Multiply(factor=(0.8, 1.2), per_channel=per_channel), _image()
    for seed in range(5):
        multiply.set_random_seed(seed)
        result = multiply(image=image)["image"]
        factors = multiply.get_applied_params()["factors"]
        assert len(set(factors)) == (3 if per_channel else 1)
        np.testing.assert_array_equal(result, _quantize(image.astype(np.float64) * factors))


@pytest.mark.parametrize("std", [0.0, 4.0, 0.05 * 255])
def test_noise_has_the_asked_strength_and_no_bias(std):
    gray = np.full((200, 200, 3), 127, dtype=np.uint8)
    result = AddGaussianNoise(std=(std, std), per_channel=1.0)(image=gray)["image"].astype(np.float64)
    # Rounding to whole levels adds a variance of 1/12.
    assert result.std() == pytest.approx(np.sqrt(std**2 + 1 / 12) if std else 0, rel=0.02)
    assert result.mean() == pytest.approx(127, abs=0.2)


def test_noise_differs_between_channels_only_when_drawn_so():
    gray = np.full((40, 40, 3), 127, dtype=np.uint8)
    same = AddGaussianNoise(std=(9, 9), per_channel=0.0)(image=gray)["image"]
    apart = AddGaussianNoise(std=(9, 9), per_channel=1.0)(image=gray)["image"].astype(np.float64)
    assert np.ptp(same, axis=2).max() == 0
    assert np.ptp(same[:, :, 0]) > 20
    assert abs(np.corrcoef(apart[:, :, 0].ravel(), apart[:, :, 1].ravel())[0, 1]) < 0.1


def test_noise_saturates_instead_of_wrapping_around():
    for value in (0, 255):
        flat = np.full((64, 64, 3), value, dtype=np.uint8)
        result = AddGaussianNoise(std=(12, 12), per_channel=1.0)(image=flat)["image"].astype(int)
        assert np.abs(result - value).max() < 100


def test_scale_crop_draws_every_scale_alike():
    transform = _step("scale_crop", "ScaleCrop")
    drawn = []
    for seed in range(600):
        transform.set_random_seed(seed)
        drawn.append(transform.get_params_dependent_on_data({"shape": (32, 40, 3)}, {})["scale"])
    scales, counts = np.unique(drawn, return_counts=True)
    assert scales.tolist() == [0.5, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert counts.min() > 60


def test_scale_one_keeps_an_image_of_the_output_size():
    image, label = _image(), _image()[:, :, 0]
    result = ScaleCrop(scales=(1.0,), height=32, width=40)(image=image, mask=label)
    np.testing.assert_array_equal(result["image"], image)
    np.testing.assert_array_equal(result["mask"], label)


@pytest.mark.parametrize("scale", [0.5, 1.25, 1.5, 1.75, 2.0])
def test_scale_crop_equals_resizing_and_then_cropping(scale):
    image = cv2.GaussianBlur(_image(size=(48, 64)), (0, 0), 2)
    rows, columns = int(48 * scale), int(64 * scale)
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(int)
    transform = ScaleCrop(scales=(scale,), height=32, width=40)
    for seed in range(10):
        transform.set_random_seed(seed)
        result = transform(image=image)["image"].astype(int)
        top, left = (transform.get_applied_params()[name] for name in ("top", "left"))
        window = resized[max(0, top) : top + 32, max(0, left) : left + 40]
        placed = result[max(0, -top) :, max(0, -left) :][: window.shape[0], : window.shape[1]]
        assert np.abs(placed - window).max() <= 2


@pytest.mark.parametrize("scale", [0.5, 1.25, 1.5, 1.75, 2.0])
def test_scaled_labels_are_the_nearest_ids(scale):
    label = np.arange(48 * 64).reshape(48, 64).astype(np.uint8) % 250
    transform = ScaleCrop(scales=(scale,), height=32, width=40)
    for seed in range(10):
        transform.set_random_seed(seed)
        result = transform(image=_image(size=(48, 64)), mask=label)["mask"]
        params = transform.get_applied_params()
        row = (np.arange(32) + params["top"] + 0.5) / scale - 0.5
        column = (np.arange(40) + params["left"] + 0.5) / scale - 0.5
        fits = np.zeros(result.shape, dtype=bool)
        # A position half-way between two pixels may go to either.
        for down, right in np.ndindex(2, 2):
            i, j = (np.rint(at + (step - 0.5) / 50).astype(int) for at, step in ((row, down), (column, right)))
            inside = ((i >= 0) & (i < 48))[:, None] & ((j >= 0) & (j < 64))
            fits |= result == np.where(inside, label[np.clip(i, 0, 47)[:, None], np.clip(j, 0, 63)], 255)
        assert fits.all()


def test_a_smaller_scaled_image_lies_anywhere_in_the_window():
    transform = ScaleCrop(scales=(0.5,), height=32, width=40)
    places = set()
    for seed in range(NUM_DRAWS):
        transform.set_random_seed(seed)
        params = transform.get_params_dependent_on_data({"shape": (32, 40, 3)}, {})
        places.add((params["top"], params["left"]))
    tops, lefts = zip(*places, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (-16, 0, -20, 0)
