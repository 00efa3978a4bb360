"""The shapes that travel between data sets, networks, methods and the loop.

Legend: B batch, C classes, H x W image size. An `image` is normalized float [B, 3, H, W] in RGB order; a `label` is int64
[B, H, W] of train ids 0..C-1 with `IGNORE_INDEX` = void; `logits` are unnormalized class scores float [B, C, H, W].
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

Pixels = npt.NDArray[np.uint8]

IGNORE_INDEX = 255
SMALLEST_SIDE = 32  # pixels of an image; the deepest feature map of the networks is 1/32 of it

# ImageNet statistics of RGB images scaled to 0..255: every network here starts from ImageNet weights or could.
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)


class LabeledBatch(NamedTuple):
    """A batch with ground truth.

    Attributes:
        image: normalized, float [B, 3, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
    """

    image: Tensor
    label: Tensor


class PseudoLabel(NamedTuple):
    """What a network takes the label of images to be.

    Attributes:
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` where nothing is claimed.
        weight: of each pixel, float [B, H, W] in [0, 1]; None: all pixels weigh the same. Of external labels their confidence.
        class_confidence: of external labels with confidences: the mean confidence of each class over all target training images,
            float [C]; infinite for a class that none of them has.
    """

    label: Tensor
    weight: Tensor | None = None
    class_confidence: Tensor | None = None


class UnlabeledBatch(NamedTuple):
    """A batch without ground truth: what a method may see of the target domain.

    Attributes:
        image: normalized, float [B, 3, H, W].
        pseudo_label: what the method said of these images at the beginning of the present round, or, for methods that
            `needs_external_labels`, what something else says of them, from the start; augmented like the images. None before the
            first round, and for other methods.
        valid: which pixels show something of an image, bool [B, H, W]: augmentation may pad. None: all do. What is predicted
            elsewhere is about nothing, and no method learns from it.
    """

    image: Tensor
    pseudo_label: PseudoLabel | None = None
    valid: Tensor | None = None


# How a network learns where classes meet; `segda.losses.boundary` says what each means.
BoundaryRule = Literal["detail", "balanced"]


class Boundary(NamedTuple):
    """Where a network takes classes to meet.

    Attributes:
        logits: scores at the input's size, float [B, 1, H, W]; positive where a boundary is more probable than not.
        rule: what the network's paper trains them by.
    """

    logits: Tensor
    rule: BoundaryRule


class SegmentationOutput(NamedTuple):
    """What every segmenter returns, in training and in evaluation mode alike.

    Attributes:
        logits: class scores at the input's size, float [B, C, H, W].
        auxiliary: further class scores at the input's size for deep supervision; empty in evaluation mode.
        features: deepest shared representation before the classifier, float [B, F, h, w].
        boundary: where classes meet, of a network that learns it beside them; None in evaluation mode, and of other networks.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    features: Tensor
    boundary: Boundary | None = None
