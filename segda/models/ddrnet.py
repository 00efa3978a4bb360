"""DDRNet-23-slim (Hong et al., 2021): a branch that stays at 1/8 and one that goes down to 1/64 exchange features twice.

Source: arXiv:2101.06085 and its code (ydhongHIT/DDRNet), whose names the file of weights uses. Published: mean IoU 0.778 on the
validation images of Cityscapes, from ImageNet weights, with one auxiliary head of weight 0.4 (`loss.auxiliary_weight`).
`width` scales the trunk's first channels (32, rounded to multiples of 8), of which all others but the pyramid's inner ones are
multiples, as in the code; at width 2 the network is DDRNet-23.

Deviations: every up-sampling goes to the size of what it is added to instead of an eighth rounded down, so that every size from
32 x 32 works, and averages over windows are convolved in single precision; for multiples of 8 the result is the same. The code
mixes synchronized with plain batch normalization; here all of them are plain.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import enlarge_scores, initialize_kaiming, resize
from segda.models.dual_resolution import CLASSIFIER, Bottleneck, head, head_names, projection, stage, stem
from segda.models.official_weights import OfficialNames, ScaledWeightsConfig, load_official_weights
from segda.models.pyramids import DeepAggregationPyramid, pyramid_names
from segda.models.width import scaled
from segda.types import SegmentationOutput

# Channels at 1/4 and of each scale of the pyramid.
_PLANES, _PYRAMID = 32, 128

_NAMES = OfficialNames(
    own={
        "conv1": "backbone.stem",
        "layer1": "backbone.quarter",
        "layer2": "backbone.eighth",
        "layer3": "backbone.low3",
        "layer4": "backbone.low4",
        "layer5.0": "backbone.low5",
        "layer3_": "backbone.high3",
        "layer4_": "backbone.high4",
        "layer5_.0": "backbone.high5",
        "compression3": "backbone.up3",
        "compression4": "backbone.up4",
        "down3": "backbone.down3",
        "down4": "backbone.down4",
        **pyramid_names("spp", "pyramid"),
        **head_names("final_layer", "head"),
        **head_names("seghead_extra", "auxiliary_head"),
    },
    optional=("pyramid", "head", "auxiliary_head"),
    classifiers=(f"head.{CLASSIFIER}", f"auxiliary_head.{CLASSIFIER}"),
    # The end of the classifier of ImageNet, and the class weights of the loss.
    foreign=("down5.", "last_layer.", "linear.", "loss."),
)


class DDRNet23SlimConfig(ScaledWeightsConfig):
    """Settings of `DDRNet23Slim`."""

    name: Literal["ddrnet_23_slim"] = "ddrnet_23_slim"
    weights_file: Path | None = Field(
        None,
        description="local copy of DDRNet23s_imagenet.pth (ImageNet) or best_val_smaller.pth (Cityscapes), to which the README of "
        "github.com/ydhongHIT/DDRNet links",
    )


class Branches(NamedTuple):
    """What the trunk computes.

    Attributes:
        exchanged: the fine branch after the first exchange, float [B, 2 * planes, ceil(H / 8), ceil(W / 8)].
        high: end of the fine branch, float [B, 4 * planes, ceil(H / 8), ceil(W / 8)].
        low: end of the coarse branch, float [B, 16 * planes, ceil(H / 64), ceil(W / 64)].
    """

    exchanged: Tensor
    high: Tensor
    low: Tensor


class DualResolutionTrunk(nn.Module):
    """Three stages in common, then two branches: `high` at 1/8, `low` at 1/16, 1/32 and 1/64."""

    def __init__(self, planes: int) -> None:
        """Build the layers.

        Args:
            planes: channels at 1/4; the fine branch has twice as many, the coarse one 4 and 8 times, before their ends.
        """
        super().__init__()
        fine, low3, low4 = 2 * planes, 4 * planes, 8 * planes
        self.stem = stem(planes)
        self.quarter = stage(planes, planes, 2)
        self.eighth = stage(planes, fine, 2, stride=2)
        self.high3, self.high4, self.high5 = stage(fine, fine, 2), stage(fine, fine, 2), Bottleneck(fine, fine)
        self.low3 = stage(fine, low3, 2, stride=2)
        self.low4 = stage(low3, low4, 2, stride=2)
        self.low5 = Bottleneck(low4, low4, stride=2)
        self.up3, self.up4 = projection(low3, fine), projection(low4, fine)
        self.down3 = projection(fine, low3, kernel_size=3, stride=2)
        self.down4 = nn.Sequential(
            *projection(fine, low3, kernel_size=3, stride=2),
            nn.ReLU(inplace=True),
            *projection(low3, low4, kernel_size=3, stride=2),
        )

    def forward(self, image: Tensor) -> Branches:
        """Compute the features of float [B, 3, H, W]."""
        shared = self.eighth(self.quarter(self.stem(image)).relu()).relu()
        high, low = _exchange(self.high3(shared), self.low3(shared), up=self.up3, down=self.down3)
        exchanged = high
        high, low = _exchange(self.high4(high.relu()), self.low4(low.relu()), up=self.up4, down=self.down4)
        return Branches(exchanged, self.high5(high.relu()), self.low5(low.relu()))


def _exchange(high: Tensor, low: Tensor, *, up: nn.Module, down: nn.Module) -> tuple[Tensor, Tensor]:
    """Add to each branch what the other one was before."""
    enlarged = resize(up(low.relu()), size=(high.shape[2], high.shape[3]))
    return high + enlarged, low + down(high.relu())


class DDRNet23Slim(Segmenter):
    """The network.

    With 19 classes it has 5,734,342 parameters in training and 5,695,987 in use (without the auxiliary head), and needs 36.7 G
    multiply-accumulates at 1024 x 2048 (36.5 G up to scores at 1/8). The end of the coarse branch and the larger windows of the
    pyramid are a few pixels, or one, for small images: training wants large crops (1024 x 1024 in the paper).
    """

    Config: ClassVar[type[ModelConfig]] = DDRNet23SlimConfig
    num_auxiliary: ClassVar[int] = 1
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_head",)
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with Kaiming initialization; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        planes = scaled(_PLANES, config.width)
        self.backbone = DualResolutionTrunk(planes)
        self.pyramid = DeepAggregationPyramid(16 * planes, _PYRAMID, 4 * planes)
        self.head = head(4 * planes, 2 * planes, num_classes)
        self.auxiliary_head = head(2 * planes, 2 * planes, num_classes)
        initialize_kaiming(self, mode="fan_out")

    def load_initial_weights(self) -> None:
        """Load the official weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _NAMES)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary output.

        Returns:
            Logits float [B, num_classes, H, W]; one auxiliary output of the same shape, from the fine branch after the first
            exchange, or none; features float [B, 128 * width, ceil(H / 8), ceil(W / 8)], the sum of both branches.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        branches: Branches = self.backbone(image)
        high = branches.high
        features = high + resize(self.pyramid(branches.low), size=(high.shape[2], high.shape[3]))
        logits = enlarge_scores(self.head(features), sizes=[size])
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        coarse = self.auxiliary_head(branches.exchanged)
        return SegmentationOutput(logits, (enlarge_scores(coarse, sizes=[size]),), features)
