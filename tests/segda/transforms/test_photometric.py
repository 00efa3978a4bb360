"""Against forms of their own in NumPy, colorsys and SciPy."""

import colorsys

import numpy as np
import pytest
import torch
from scipy import ndimage

from segda.draws import Draws
from segda.transforms.photometric import Jitter, augment_strongly, blur, jitter_colors
from segda.types import IMAGE_MEAN, IMAGE_STD

SETTINGS = {"jitter": 0.25, "jitter_probability": 0.8, "largest_sigma": 1.15, "blur_probability": 0.5}


def scene(batch=2, height=13, width=17, *, seed=0):
    """Return RGB values float64 [B, H, W, 3] in [0, 1], with gray, black and saturated pixels, and the normalized image."""
    rgb = np.random.default_rng(seed).random((batch, height, width, 3))
    rgb[:, 0] = rgb[:, 0, :, :1]
    rgb[:, 1, :5] = 0
    rgb[:, 2, :, 1] = 0
    rgb[:, 3] = 1
    normalized = (255 * rgb - np.array(IMAGE_MEAN)) / np.array(IMAGE_STD)
    image = torch.from_numpy(normalized).float().permute(0, 3, 1, 2)
    assert image.is_contiguous(memory_format=torch.channels_last)
    return rgb, image


def values(image):
    """Return RGB values float64 [B, H, W, 3] of a normalized image."""
    return (image.permute(0, 2, 3, 1).double().numpy() * np.array(IMAGE_STD) + np.array(IMAGE_MEAN)) / 255


def expected(rgb, jitter):
    """Jitter one image float64 [H, W, 3], pixel by pixel."""
    luma = np.array([0.299, 0.587, 0.114])
    rgb = np.clip(rgb * jitter.brightness, 0, 1)
    rgb = np.clip(jitter.contrast * rgb + (1 - jitter.contrast) * (rgb @ luma).mean(), 0, 1)
    rgb = np.clip(jitter.saturation * rgb + (1 - jitter.saturation) * (rgb @ luma)[..., None], 0, 1)
    result = np.empty_like(rgb)
    for place in np.ndindex(*rgb.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb[place])
        result[place] = colorsys.hsv_to_rgb((hue + jitter.hue) % 1, saturation, value)
    return result


@pytest.mark.parametrize(
    "jitter",
    [
        Jitter(1, 1, 1, 0),
        Jitter(0.8, 1, 1, 0),
        Jitter(1.25, 1, 1, 0),
        Jitter(1, 0.75, 1, 0),
        Jitter(1, 1.25, 1, 0),
        Jitter(1, 1, 0.75, 0),
        Jitter(1, 1, 1.25, 0),
        Jitter(1, 1, 0, 0),
        Jitter(1, 1, 1, 0.2),
        Jitter(1, 1, 1, -0.25),
        Jitter(1, 1, 1, 0.5),
        Jitter(1.1, 0.85, 1.2, -0.13),
    ],
)
def test_colors_change_as_in_the_reference(jitter):
    rgb, image = scene()
    got = values(jitter_colors(image, jitter))
    for one, result in zip(rgb, got, strict=True):
        np.testing.assert_allclose(result, expected(one, jitter), atol=2e-6)


def test_a_third_of_a_turn_makes_red_green():
    red = torch.tensor(
        [(255.0 * full - mean) / std for full, mean, std in zip((1, 0, 0), IMAGE_MEAN, IMAGE_STD, strict=True)]
    ).view(1, 3, 1, 1)
    np.testing.assert_allclose(values(jitter_colors(red, Jitter(1, 1, 1, 1 / 3)))[0, 0, 0], (0, 1, 0), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.15, 0.5, 1.15, 2.5])
def test_blur_is_a_normalized_gaussian_with_reflected_borders(sigma):
    _, image = scene()
    got = blur(image, sigma).double().numpy()
    plain = image.double().numpy()
    # SciPy's `mirror` is reflection without repeating the border.
    reference = ndimage.gaussian_filter(
        plain, (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, *(2 * [int(np.ceil(3.5 * sigma))]))
    )
    np.testing.assert_allclose(got, reference, atol=1e-5)


def test_a_blur_is_no_less_exact_where_convolutions_compute_in_bfloat16():
    _, image = scene()
    with torch.autocast("cpu", torch.bfloat16):
        got = blur(image, 1.0)
    assert torch.equal(got, blur(image, 1.0))


def test_the_jitter_s_draws_fill_their_ranges_around_no_change():
    draws = np.array([Jitter.draw(0.25, torch.Generator().manual_seed(seed)) for seed in range(400)])
    offsets = draws - np.array([1, 1, 1, 0])
    assert (np.abs(offsets) <= 0.25).all()
    assert (offsets.min(0) < -0.24).all()
    assert (offsets.max(0) > 0.24).all()
    assert (np.abs(offsets.mean(0)) < 0.025).all()
    assert (np.abs(np.corrcoef(offsets.T) - np.eye(4)) < 0.2).all()


def changed(settings, count=200):
    """Return how many of so many images are changed."""
    _, image = scene(count, 12, 12)
    result = augment_strongly(image, **SETTINGS | settings, generator=Draws(seed=0, step=0).generator)
    return int((result != image).flatten(1).any(1).sum())


def test_jitter_and_blur_happen_as_often_as_asked():
    assert changed({"jitter_probability": 0, "blur_probability": 0}) == 0
    assert changed({"jitter_probability": 1, "blur_probability": 0}) == 200
    assert 140 < changed({"blur_probability": 0}) < 180
    # A sigma under a fifth of a pixel changes nothing in single precision.
    assert 80 < changed({"jitter_probability": 0, "largest_sigma": 3.0}) < 120


def test_the_draws_of_an_image_depend_on_its_number_in_the_batch_alone():
    _, image = scene(6)
    kept = image.clone()
    draws = Draws(seed=3, step=5)
    whole = augment_strongly(image, **SETTINGS, generator=draws.generator)
    parts = [augment_strongly(image[i : i + 2], **SETTINGS, generator=draws.part(i).generator) for i in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(image, kept)
    other = augment_strongly(image, **SETTINGS, generator=Draws(seed=3, step=6).generator)
    assert not torch.equal(other, whole)


def test_the_memory_format_is_kept():
    _, image = scene()
    for given in (image, image.contiguous()):
        result = augment_strongly(given, **SETTINGS, generator=Draws(seed=0, step=0).generator)
        assert result.stride() == given.stride()
