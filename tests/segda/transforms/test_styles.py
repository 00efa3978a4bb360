"""Style steps against independent float64 versions, written from their formulas."""

import pickle
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from segda.transforms.styles import STYLES, Style, build_style
from segda.transforms.styles.covariance import color_moments, monge_map
from segda.transforms.styles.histogram import match_histogram, matching_gamma
from segda.transforms.styles.lab import from_lab, to_lab
from segda.types import Pixels

SIZE = (37, 52)
Float = NDArray[np.float64]
WITH_PARTNER = [name for name in STYLES if name != "none"]


def photo(seed: int, *, low: int, high: int, tint: tuple[float, float, float], size: tuple[int, int] = SIZE) -> Pixels:
    """Smooth shapes with noise, in some light: channels are correlated, as in photographs."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(0, 1, count) for count in size)
    phase = rng.uniform(0, 6, 3)
    shapes = np.sin(7 * x + phase[0])[None] + np.cos(9 * y + phase[1])[:, None] + (x[None] * y[:, None] > 0.3)
    gray = (shapes - shapes.min()) / np.ptp(shapes)
    values = low + (high - low) * gray[..., None] * np.array(tint) + rng.normal(0, 6, (*size, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


DAY = photo(0, low=60, high=235, tint=(1.0, 0.98, 0.9))
DUSK = photo(1, low=10, high=90, tint=(0.7, 0.8, 1.0))


def style(name: str, **settings: float) -> Style:
    built = build_style(STYLES[name].Config(name=name, **settings))
    assert built is not None
    return built


def apply(name: str, source: Pixels, target: Pixels, seed: int = 0, **settings: float) -> Pixels:
    return style(name, **settings)(source, target, rng=np.random.default_rng(seed))


def rounded(values: Float) -> Float:
    return np.clip(np.rint(values), 0, 255)


def lab_of(image: Pixels) -> Float:
    """CIELAB of sRGB with the white point of D65, from the definitions."""
    value = image / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = light @ to_xyz.T / to_xyz.sum(1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def image_of(lab: Float) -> Float:
    """The inverse, in 0..255, clipped."""
    y = (lab[..., 0] + 16) / 116
    root = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(root > 0.008856 ** (1 / 3), root**3, (root - 16 / 116) / 7.787)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    light = np.clip((xyz * to_xyz.sum(1)) @ np.linalg.inv(to_xyz).T, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def by_line(source: Float, target: Float) -> Float:
    axes = (0, 1)
    ratio = np.clip(target.std(axes) / np.maximum(source.std(axes), 1e-3), 1 / 3, 3)
    return (source - source.mean(axes)) * ratio + target.mean(axes)


def expected_statistics(source: Pixels, target: Pixels) -> Float:
    return by_line(source.astype(float), target.astype(float))


def expected_lab(source: Pixels, target: Pixels) -> Float:
    return image_of(by_line(lab_of(source), lab_of(target)))


def square_root(matrix: Float) -> Float:
    """By Denman and Beavers' iteration, which uses no eigenvectors."""
    root, inverse = matrix.copy(), np.eye(len(matrix))
    for _ in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return root


def expected_covariance(source: Pixels, target: Pixels) -> Float:
    colors, others = source.reshape(-1, 3) / 255, target.reshape(-1, 3) / 255
    own, other = (np.cov(values.T, bias=True) + 1e-5 * np.eye(3) for values in (colors, others))
    root = square_root(own)
    matrix = np.linalg.inv(root) @ square_root(root @ other @ root) @ np.linalg.inv(root)
    return (255 * ((colors - colors.mean(0)) @ matrix + others.mean(0))).reshape(source.shape)


def expected_amplitude(source: Pixels, target: Pixels, beta: float, share: float) -> Float:
    height, width = source.shape[:2]
    reach = int(np.floor(min(height, width) * beta))
    own, other = (np.fft.fft2(image, axes=(0, 1)) for image in (source, target))
    amplitude, wanted = (np.fft.fftshift(np.abs(spectrum), axes=(0, 1)) for spectrum in (own, other))
    window = tuple(slice(size // 2 - reach, size // 2 + reach + 1) for size in (height, width))
    amplitude[window] = (1 - share) * amplitude[window] + share * wanted[window]
    mixed = np.fft.ifftshift(amplitude, axes=(0, 1)) * np.exp(1j * np.angle(own))
    return np.fft.ifft2(mixed, axes=(0, 1)).real


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("channel_statistics", expected_statistics),
        ("lab", expected_lab),
        ("covariance", expected_covariance),
    ],
)
@pytest.mark.parametrize(("source", "target"), [(DAY, DUSK), (DUSK, DAY)], ids=["to dusk", "to day"])
def test_style_is_its_formula(
    name: str, expected: Callable[[Pixels, Pixels], Float], source: Pixels, target: Pixels
) -> None:
    got = apply(name, source, target)
    assert got.dtype == np.uint8
    assert np.abs(got - rounded(expected(source, target))).max() <= 1
    assert np.abs(got - expected(source, target).clip(0, 255)).mean() < 0.3
    assert np.abs(got.mean((0, 1)) - target.mean((0, 1))).max() < 4
    assert np.abs(got.astype(float) - source).mean() > 30


@pytest.mark.parametrize("beta", [0.0, 0.03, 0.09, 0.3])
def test_fda_is_the_swap_in_the_centered_window(beta: float) -> None:
    got = apply("fda", DAY, DUSK, beta=beta)
    assert np.abs(got - rounded(expected_amplitude(DAY, DUSK, beta, 1.0))).max() <= 1
    assert np.abs(got - expected_amplitude(DAY, DUSK, beta, 1.0).clip(0, 255)).mean() < 0.3


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (32, 32)])
def test_few_waves_are_the_whole_transform_at_odd_and_even_sizes(size: tuple[int, int]) -> None:
    day, dusk = (
        photo(seed, low=low, high=high, tint=(1, 1, 0.8), size=size) for seed, low, high in ((2, 50, 250), (3, 0, 120))
    )
    for beta in (0.05, 0.2, 0.49):
        assert np.abs(apply("fda", day, dusk, beta=beta) - rounded(expected_amplitude(day, dusk, beta, 1.0))).max() <= 1


def test_amplitude_mix_draws_the_targets_share_from_zero_to_one() -> None:
    means = []
    for seed in range(40):
        got = apply("amplitude_mix", DAY, DUSK, seed=seed)
        share = np.random.default_rng(seed).random()
        assert np.abs(got - rounded(expected_amplitude(DAY, DUSK, 0.09, share))).max() <= 1
        means.append(got.mean())
    assert DUSK.mean() < min(means) < DUSK.mean() + 30
    assert DAY.mean() - 30 < max(means) < DAY.mean() + 1


@pytest.mark.parametrize("name", WITH_PARTNER)
@pytest.mark.parametrize("image", [DAY, DUSK], ids=["day", "dusk"])
def test_an_image_with_its_own_style_is_itself(name: str, image: Pixels) -> None:
    """Also where histograms are skewed and bins empty: interpolating between cumulated shares is off by tens of levels there."""
    assert np.array_equal(apply(name, image, image.copy()), image)
    skewed = np.where(image > 100, image, 3).astype(np.uint8)
    assert np.array_equal(apply(name, skewed, skewed.copy()), skewed)


@pytest.mark.parametrize("name", WITH_PARTNER)
def test_flat_and_black_and_white_images_give_images(name: str) -> None:
    """No division by a deviation of zero, no noise blown up, no value that wraps around."""
    flat = [np.full((*SIZE, 3), value, np.uint8) for value in (0, 90, 255)]
    for source in (*flat, DAY):
        for target in (*flat, DUSK):
            with np.errstate(all="raise", under="ignore"):
                got = apply(name, source, target)
            assert got.dtype == np.uint8
            assert got.shape == source.shape
    if name != "amplitude_mix":
        assert np.abs(apply(name, flat[1], DUSK).mean((0, 1)) - DUSK.mean((0, 1))).max() < 12
        assert np.abs(apply(name, DAY, flat[1]).mean((0, 1)) - 90.0).max() < 12


@pytest.mark.parametrize("name", ["channel_statistics", "lab"])
def test_the_ratio_of_deviations_is_limited(name: str) -> None:
    """Without a limit the noise of one level around gray would become the contrast of the target."""
    rng = np.random.default_rng(0)
    gray = np.full((*SIZE, 3), 120, np.uint8) + rng.integers(0, 2, (*SIZE, 1), dtype=np.uint8)
    assert apply(name, gray, DAY).std() < 3 * 0.5 * 1.5 + DAY.mean((0, 1)).std()
    assert DAY.std() > 30


def test_lab_is_cielab_and_comes_back() -> None:
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(-1, 18, 3)
    assert np.abs(to_lab(every) - lab_of(every)).max() < 0.05
    assert np.array_equal(from_lab(to_lab(every)), every)
    outside = np.array([[[150, 0, 0], [-20, 0, 0], [50, 200, -200]]], np.float32)
    np.testing.assert_allclose(from_lab(outside), rounded(image_of(outside.astype(float))), atol=1)


def test_lightness_becomes_the_targets_mean_by_one_gamma_curve() -> None:
    evening = photo(1, low=30, high=140, tint=(0.7, 0.8, 1.0))
    got, source, target = (lab_of(image)[..., 0] for image in (apply("histogram", DAY, evening), DAY, evening))
    assert abs(source.mean() - target.mean()) > 15
    assert abs(got.mean() - target.mean()) < 0.5
    gamma = (np.log(got / 100) / np.log(source / 100))[(source > 20) & (source < 95)]
    assert 1.5 < np.median(gamma) < 3
    assert np.ptp(np.quantile(gamma, [0.05, 0.95])) < 0.15 * np.median(gamma)


def test_a_bin_goes_to_the_bin_with_the_quantile_of_its_middle_pixel() -> None:
    def slow(source: list[int], target: list[int]) -> list[int]:
        """Go from bin to bin, with exact fractions."""
        pixels, theirs = sum(source), sum(target)
        goes_to = []
        for k in range(len(source)):
            quantile = Fraction(2 * sum(source[:k]) + source[k], 2 * pixels)
            goes_to.append(next(j for j in range(len(target)) if Fraction(sum(target[: j + 1]), theirs) >= quantile))
        return goes_to

    rng = np.random.default_rng(0)
    for _ in range(50):
        source, target = ((rng.integers(0, 9, 12) * rng.integers(0, 2, 12)).tolist() for _ in range(2))
        source[5] += 1
        target[7] += 1
        got = match_histogram(np.array(source), np.array(target)).tolist()
        assert got == slow(source, target)
        assert got == sorted(got)
    counts = np.array([0, 7, 0, 0, 1, 3, 0])
    assert match_histogram(counts, 1000 * counts)[counts > 0].tolist() == [1, 4, 5]
    assert match_histogram(np.array([0, 0, 9, 0]), np.array([4, 5, 1, 0]))[2] == 1


def test_colors_of_a_matched_image_have_the_targets_quantiles() -> None:
    lab, other = to_lab(DAY), to_lab(DUSK)
    for channel in (1, 2):
        edges = np.linspace(-128, 128, 1025)
        own, wanted = (np.histogram(values[..., channel], edges)[0] for values in (lab, other))
        moved = np.repeat(match_histogram(own, wanted), own)
        theirs = np.repeat(np.arange(1024), wanted)
        for share in (0.1, 0.5, 0.9):
            assert abs(np.quantile(moved, share) - np.quantile(theirs, share)) <= 8  # 2 units of a or b


def test_gamma_takes_the_mean_to_the_targets() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 100, 1024), np.sort(rng.integers(0, 100, 1024))[::-1]
    centers = (np.arange(1024) + 0.5) / 1024
    gamma = matching_gamma(source, target)
    assert gamma > 1  # the target is darker
    assert abs(source @ centers**gamma / source.sum() - target @ centers / target.sum()) < 1e-6
    assert matching_gamma(target, source) < 1
    assert abs(matching_gamma(source, source) - 1) < 1e-6
    black, white = np.eye(1024, dtype=np.int64)[[0, -1]]
    assert abs(matching_gamma(source, black) - 3) < 1e-6
    assert abs(matching_gamma(source, white) - 1 / 3) < 1e-6


def test_monge_map_is_symmetric_takes_one_covariance_to_the_other_and_is_identity_for_equal_ones() -> None:
    rng = np.random.default_rng(0)
    own, other = (np.cov(rng.normal(size=(3, 9)) * scale) for scale in (1.0, 0.3))
    matrix = monge_map(own, other)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix @ own @ matrix, other, atol=1e-12)
    np.testing.assert_allclose(monge_map(own, own), np.eye(3), atol=1e-12)
    triangle = np.linalg.cholesky(other) @ np.linalg.inv(np.linalg.cholesky(own))
    assert np.abs(triangle - triangle.T).max() > 0.1, "whitening by triangles also matches, and turns colors"


def test_moments_are_those_of_the_pixels() -> None:
    mean, covariance = color_moments(DAY)
    colors = DAY.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, colors.mean(0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(colors.T, bias=True), atol=1e-9)


@pytest.mark.parametrize("name", WITH_PARTNER)
def test_style_writes_to_no_input_and_can_be_sent_to_a_process(name: str) -> None:
    day, dusk = DAY.copy(), DUSK.copy()
    day.flags.writeable = dusk.flags.writeable = False
    sent = pickle.loads(pickle.dumps(style(name)))
    assert np.array_equal(sent(day, dusk, rng=np.random.default_rng(0)), apply(name, DAY, DUSK))


def test_no_style_is_no_step() -> None:
    assert build_style(STYLES["none"].Config()) is None
    assert STYLES["none"](None)(DAY, DUSK, rng=np.random.default_rng(0)) is DAY
