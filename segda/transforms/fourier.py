"""The low frequencies of one image's amplitude spectrum in the place of another's, on images on their device (FDA).

The phase of a spectrum says where things are; the lowest frequencies of its amplitude say how bright, how contrasty and of what
tint the image is over large areas, which is much of what makes a domain.

Source: Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020, arXiv:2004.05498, and its NumPy code.
The torch code of the authors swaps four corners of b x b bins instead, which leaves out one side's highest frequency, hence
is no window around zero, and does nothing where b is 0.
"""

import torch
from torch import Tensor


def window_reach(height: int, width: int, beta: float) -> int:
    """Return b, the highest frequency that is exchanged, in periods per image: floor(beta * the shorter side).

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        beta: share of the shorter side, in [0, 0.5).

    Example:
        >>> window_reach(180, 240, 0.05), window_reach(180, 240, 0.001)
        (9, 0)
    """
    return int(min(height, width) * beta)


def swap_amplitude(source: Tensor, target: Tensor, *, beta: float) -> Tensor:
    """Give images the low frequencies' amplitude of others, each channel by itself; the phase stays.

    With the spectra F_s and F_t and b as in `window_reach`, the (2b + 1) x (2b + 1) bins around frequency zero become
    |F_t| * exp(i * angle(F_s)). With b = 0 that is the mean of each channel alone.

    Args:
        source: RGB from 0 to 255, float [B, 3, H, W]; not normalized images, of which the target's channels have other scales.
        target: partners of the same size, one for each image.
        beta: share of the shorter side, in [0, 0.5).

    Returns:
        float32 [B, 3, H, W] in the memory format of the source; nothing is clipped, so values leave 0..255.

    Raises:
        ValueError: the sizes differ, or beta is out of range.
    """
    if source.shape != target.shape:
        raise ValueError(f"amplitudes are swapped between images of one size, got {source.shape} and {target.shape}")
    if not 0 <= beta < 0.5:
        raise ValueError(f"beta must be in [0, 0.5), got {beta}")
    height, width = source.shape[2:]
    reach = window_reach(height, width, beta)
    with torch.autocast(source.device.type, enabled=False):
        spectrum, other = (torch.fft.rfft2(images.float()) for images in (source, target))
        # The spectrum of a real image is symmetric, and half of it is kept: columns from 0 up stand for those below as well. Rows
        # of negative frequency are the last ones. Only the difference is transformed back: frequencies outside of the window
        # keep every bit.
        change = torch.zeros_like(spectrum)
        for rows in (slice(0, reach + 1), slice(height - reach, height)):
            own = spectrum[:, :, rows, : reach + 1]
            wanted = torch.polar(other[:, :, rows, : reach + 1].abs(), own.angle())
            change[:, :, rows, : reach + 1] = wanted - own
        difference: Tensor = torch.fft.irfft2(change, s=(height, width))
        return source.float() + difference
