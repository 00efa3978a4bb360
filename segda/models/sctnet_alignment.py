"""What SCTNet learns from the features of a SegFormer: its semantic information alignment.

L = 3 * D(scores) + 15 * D(mixed) + 15 * D(1/32) + 15 * D(1/16)

D is `channel_divergence`: in which of the positions each channel is large, at temperature 4. At 1/32 and 1/16 a 1x1 convolution
brings the student's features to the width of the teacher's third and fourth stage. A third one stands in for all that the teacher's
head joins; the teacher's own layers, frozen, then make features and scores from it. These convolutions start as He et al. draw them
and learn with the heads.

Source: arXiv:2312.17071 and its code (xzz777/SCTNet, MIT). B2 teaches s there and B3 teaches b, each trained on the same data.

Deviations. Before the teacher's layers the stand-in gets mean and deviation of the teacher's channels; here they are those of each
image, there of all images of a batch, so that here a loss of parts of a batch adds up to that of the whole. It passes these layers
at the student's 1/8 and what they make is enlarged to the teacher's 1/4; there it is enlarged before, for the fourfold memory: the
layers are 1x1 convolutions, so that the two differ by where ReLU comes and by the deviation of a smoother map. Positions that no
pixel with a label belongs to do not count. The teacher's head is that of SegFormer's authors, 768 channels wide in B2 and B3 (in
another reimplementation, which the code uses, 256); any variant can teach, B0 included.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.errors import ConfigError
from segda.losses import Loss, total
from segda.losses.distillation import channel_divergence
from segda.models.alignment import FeatureAlignment, Seen
from segda.models.blocks import initialize_kaiming, no_autocast, resize
from segda.models.segformer import SegFormer

_WEIGHTS = (3.0, 15.0, 15.0, 15.0)
_EPSILON = 1e-5  # beside a variance


class SCTNetAlignment(FeatureAlignment):
    """The alignment, with its three convolutions; see the head of this file."""

    watched: ClassVar[tuple[str, ...]] = ("backbone.former3", "backbone.former5")

    def __init__(self, student: Any, teacher: Any) -> None:
        """Build the convolutions; see `FeatureAlignment.__init__`.

        Args:
            student: an `SCTNet`, perhaps a narrowed one.
            teacher: a `SegFormer`, perhaps a narrowed one.
        """
        super().__init__(student, teacher)
        if not isinstance(teacher, SegFormer):
            raise ConfigError(
                f"sctnet learns the features of a segformer, the teacher is {teacher.config.label()}; take a segformer, or learn "
                "predictions, which any network can teach"
            )
        backbone: Any = student.backbone
        theirs: Any = teacher.head
        third, fifth = backbone.former3.convolutions[-1], backbone.former5.convolutions[-1]
        self.sixteenth = nn.Conv2d(third.out_channels, theirs.levels["c3"].in_features, 1)
        self.thirty_second = nn.Conv2d(fifth.out_channels, theirs.levels["c4"].in_features, 1)
        self.joined = nn.Conv2d(student.head[0][0].num_features, theirs.fuse[0].in_channels, 1)
        initialize_kaiming(self, mode="fan_out")

    def forward(
        self, teacher: Any, image: Tensor, seen: Seen, *, temperature: float, where: Tensor | None = None
    ) -> Loss:
        """Return the weighted sum of the four distances; see `FeatureAlignment.forward`."""
        with torch.no_grad():
            levels = teacher.backbone(image)
            joined = teacher.head.join(levels)
            mixed = teacher.head.fuse(joined)
            wanted = (teacher.classifier(mixed), mixed, levels[3], levels[2])
        sixteenth, thirty_second = seen.inner
        own = teacher.head.fuse(_standardized(self.joined(seen.output.features), joined, where))
        found = (teacher.classifier(own), own, self.thirty_second(thirty_second), self.sixteenth(sixteenth))
        return total(
            [
                weight * _distance(maps, theirs, temperature=temperature, where=where)
                for weight, maps, theirs in zip(_WEIGHTS, found, wanted, strict=True)
            ]
        )


def _distance(found: Tensor, wanted: Tensor, *, temperature: float, where: Tensor | None) -> Loss:
    size = (wanted.shape[2], wanted.shape[3])
    return channel_divergence(
        resize(found, size=size), wanted, temperature=temperature, where=_positions(where, size=size)
    )


def _positions(where: Tensor | None, *, size: tuple[int, int]) -> Tensor | None:
    """Return which positions of a map have a pixel that counts, bool [B, *size]."""
    return None if where is None else functional.adaptive_max_pool2d(where.float().unsqueeze(1), size).squeeze(1) > 0


def _standardized(found: Tensor, wanted: Tensor, where: Tensor | None) -> Tensor:
    """Give each channel of each image the mean and deviation that the teacher's has.

    Args:
        found: of the student, float [B, C, h, w].
        wanted: of the teacher, float [B, C, h', w'].
        where: which pixels of the images count, bool [B, H, W]; None: all.

    Returns:
        float32 (or float64) [B, C, h, w].
    """
    with no_autocast(found.device):
        (own, mean, deviation), (_, their_mean, their_deviation) = (
            _statistics(maps, where) for maps in (found, wanted)
        )
        return (own - mean) / deviation * their_deviation + their_mean


def _statistics(maps: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps in at least single precision, and mean and deviation of each channel of each image [B, C, 1, 1]."""
    maps = maps.float() if maps.dtype.itemsize < 4 else maps
    positions = _positions(where, size=(maps.shape[2], maps.shape[3]))
    if positions is None:
        variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
    else:
        counted = positions.unsqueeze(1).to(maps.dtype)
        share = counted / counted.sum((2, 3), keepdim=True).clamp(min=1)
        mean = (maps * share).sum((2, 3), keepdim=True)
        variance = ((maps - mean).square() * share).sum((2, 3), keepdim=True)
    return maps, mean, (variance + _EPSILON).sqrt()
