"""Strong augmentation of what a teacher has labelled: settings that methods share, and the call."""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from segda.methods.base import MethodConfig
from segda.transforms.photometric import SMALLEST_SIGMA, augment_strongly
from segda.tunable import Range


class StrongConfig(MethodConfig):
    """Settings of the color jitter and the blur of images that the student learns from; defaults are those of DACS's code."""

    jitter: Annotated[float, Range(0.05, 0.5)] = Field(
        0.25,
        ge=0,
        le=0.5,
        description="color jitter of the student's images: factors on brightness, contrast and saturation from 1 -+ this, hue "
        "within this many turns",
    )
    jitter_probability: Annotated[float, Range(0.0, 1.0)] = Field(
        0.8, ge=0, le=1, description="share of the student's images whose colors are jittered"
    )
    blur_sigma: Annotated[float, Range(0.5, 3.0)] = Field(
        1.15,
        gt=SMALLEST_SIGMA,
        le=8,
        description="largest standard deviation in pixels of the Gaussian blur of the student's images; the smallest is "
        f"{SMALLEST_SIGMA}",
    )
    blur_probability: Annotated[float, Range(0.0, 1.0)] = Field(
        0.5, ge=0, le=1, description="share of the student's images that are blurred"
    )


def strongly(images: Tensor, config: StrongConfig, *, generator: Callable[[int, str], torch.Generator]) -> Tensor:
    """Jitter and blur images as the settings say; see `augment_strongly`.

    Args:
        images: normalized, float [B, 3, H, W].
        config: of the method.
        generator: (number of the image, purpose) -> generator on the CPU, as `Draws.generator`.

    Returns:
        float [B, 3, H, W].
    """
    return augment_strongly(
        images,
        jitter=config.jitter,
        jitter_probability=config.jitter_probability,
        largest_sigma=config.blur_sigma,
        blur_probability=config.blur_probability,
        generator=generator,
    )
