"""The amplitude swap against its definition, written with the full spectrum in float64."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from segda.transforms.fourier import swap_amplitude, window_reach

SIZES = [(32, 48), (33, 47), (48, 31), (20, 20)]


def expected(source: NDArray[np.float64], target: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Swap on the shifted spectrum, as the authors' NumPy code does: [..., H, W], a window of 2b + 1 bins around the center."""
    height, width = source.shape[-2:]
    reach = int(np.floor(min(height, width) * beta))
    own, other = (np.fft.fft2(image, axes=(-2, -1)) for image in (source, target))
    amplitude, wanted = (np.fft.fftshift(np.abs(spectrum), axes=(-2, -1)) for spectrum in (own, other))
    row, column = height // 2, width // 2
    window = (..., slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1))
    amplitude[window] = wanted[window]
    swapped = np.fft.ifftshift(amplitude, axes=(-2, -1)) * np.exp(1j * np.angle(own))
    result = np.fft.ifft2(swapped, axes=(-2, -1))
    assert np.abs(result.imag).max() < 1e-9, "a window that is not symmetric leaves an imaginary part"
    return result.real


def images(size: tuple[int, int], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 3, *size)).astype(np.float32))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beta", [0.0, 0.01, 0.05, 0.09, 0.3, 0.499])
def test_swap_is_that_of_the_centered_window_of_the_full_spectrum(size: tuple[int, int], beta: float) -> None:
    source, target = images(size, 0), images(size, 1) / 2
    got = swap_amplitude(source, target, beta=beta)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected(source.double().numpy(), target.double().numpy(), beta), atol=1e-3)
    assert (got - source).abs().max() > 10


@pytest.mark.parametrize("size", SIZES)
def test_fda_of_an_image_with_itself_is_the_image(size: tuple[int, int]) -> None:
    source = images(size, 0)
    assert (swap_amplitude(source, source.clone(), beta=0.09) - source).abs().max() < 1e-4


def test_beta_zero_swaps_the_mean_color_alone() -> None:
    source, target = images((24, 36), 0), images((24, 36), 1) / 3
    swapped = swap_amplitude(source, target, beta=0.0)
    torch.testing.assert_close(swapped.mean((2, 3)), target.mean((2, 3)), atol=1e-4, rtol=0)
    shift = swapped - source
    torch.testing.assert_close(shift, shift.mean((2, 3), keepdim=True).expand_as(shift), atol=1e-4, rtol=0)


def test_values_may_leave_the_range_of_images() -> None:
    swapped = swap_amplitude(images((32, 48), 0), images((32, 48), 1), beta=0.09)
    assert swapped.min() < 0
    assert swapped.max() > 255


def test_frequencies_on_both_sides_of_zero_are_swapped_and_no_others() -> None:
    """The window is symmetric: the authors' torch code, of b x b corners, changes -b..b-1 only."""
    source, target = images((40, 60), 0), images((40, 60), 1)
    swapped = swap_amplitude(source, target, beta=0.05)  # b = 2
    before, after, wanted = (torch.fft.fft2(image.double()).abs() for image in (source, swapped, target))
    rows, columns = (torch.fft.fftfreq(size, 1 / size).abs() <= 2 for size in (40, 60))
    window = rows[:, None] & columns
    assert window.sum() == 25
    torch.testing.assert_close(after[..., window], wanted[..., window], atol=0.5, rtol=1e-4)
    torch.testing.assert_close(after[..., ~window], before[..., ~window], atol=0.5, rtol=1e-4)


def test_phase_stays() -> None:
    source, target = images((24, 36), 0), images((24, 36), 1)
    before, after = (
        torch.fft.fft2(image.double())[..., :3, :3] for image in (source, swap_amplitude(source, target, beta=0.1))
    )
    turned = after / after.abs() * (before / before.abs()).conj()
    assert (turned - 1).abs().max() < 1e-3


def test_a_bin_without_amplitude_takes_the_targets_with_phase_zero() -> None:
    flat, target = torch.full((1, 3, 16, 16), 100.0), images((16, 16), 1)[:1]
    np.testing.assert_allclose(
        swap_amplitude(flat, target, beta=0.0).numpy(),
        target.mean((2, 3), keepdim=True).expand(1, 3, 16, 16),
        atol=1e-3,
    )
    assert swap_amplitude(torch.zeros(1, 3, 16, 16), target, beta=0.2).isfinite().all()


def test_each_image_has_its_own_partner() -> None:
    source, target = images((24, 36), 0), images((24, 36), 1)
    both = swap_amplitude(source, target, beta=0.09)
    for number in range(2):
        alone = swap_amplitude(source[number : number + 1], target[number : number + 1], beta=0.09)
        torch.testing.assert_close(both[number : number + 1], alone, atol=1e-4, rtol=0)


def test_memory_format_is_that_of_the_source() -> None:
    source = images((24, 36), 0).contiguous(memory_format=torch.channels_last)
    assert swap_amplitude(source, images((24, 36), 1), beta=0.09).is_contiguous(memory_format=torch.channels_last)


def test_half_precision_of_the_step_does_not_reach_the_spectrum() -> None:
    source, target = images((24, 36), 0), images((24, 36), 1)
    with torch.autocast("cpu", torch.bfloat16):
        got = swap_amplitude(source, target, beta=0.09)
    assert torch.equal(got, swap_amplitude(source, target, beta=0.09))


def test_images_of_other_sizes_and_other_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        swap_amplitude(images((24, 36), 0), images((36, 24), 0), beta=0.01)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 0.5\)"):
        swap_amplitude(images((24, 36), 0), images((24, 36), 0), beta=0.5)


def test_reach_is_rounded_down() -> None:
    assert [window_reach(180, 240, beta) for beta in (0.0, 0.005, 0.01, 0.05, 0.09)] == [0, 0, 1, 9, 16]
