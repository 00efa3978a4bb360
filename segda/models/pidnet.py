"""PIDNet-S (Xu et al., CVPR 2023): branches for detail (P), context (I) and boundaries (D), named after a PID controller.

Source: its code (XuJiacong/PIDNet, MIT), whose names the files of weights use. Published: mean IoU 0.788 on the validation images
of Cityscapes, 0.801 on CamVid from those weights. The heads of training read what a ReLU has left, as in the code, which rectifies
in place. Losses there: OHEM of the main output, 0.4 times the cross-entropy of an auxiliary one (`loss.auxiliary_weight`), and
what the boundary adds (`segda.losses.boundary`, rule `balanced`); here all class scores have the loss that the configuration names.
`width` scales the trunk's first channels (32, rounded to multiples of 8), of which all others but the inner ones of pyramid and
heads are multiples, as in the code; at width 2 the network is PIDNet-M.

Deviations: averages over windows are convolved in single precision.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from segda.models.base import ModelConfig, Segmenter
from segda.models.blocks import enlarge_scores, initialize_kaiming, resize
from segda.models.dual_resolution import CLASSIFIER, BasicBlock, Bottleneck, head, head_names, projection, stage, stem
from segda.models.official_weights import OfficialNames, ScaledWeightsConfig, load_official_weights
from segda.models.pyramids import ParallelAggregationPyramid, pyramid_names
from segda.models.width import scaled
from segda.types import Boundary, SegmentationOutput

# Channels at 1/4, of each scale of the pyramid, and inside of heads.
_PLANES, _PYRAMID, _HEAD = 32, 96, 128

_NAMES = OfficialNames(
    own={
        "conv1": "backbone.stem",
        "layer1": "backbone.quarter",
        "layer2": "backbone.eighth",
        "layer3": "backbone.context3",
        "layer4": "backbone.context4",
        "layer5": "backbone.context5",
        "layer3_": "backbone.detail3",
        "layer4_": "backbone.detail4",
        "layer5_.0": "backbone.detail5",
        "layer3_d": "backbone.boundary3",
        "layer4_d.0": "backbone.boundary4",
        "layer5_d.0": "backbone.boundary5",
        "compression3": "backbone.to_detail3",
        "compression4": "backbone.to_detail4",
        "pag3.f_x": "backbone.guide3.of_detail",
        "pag3.f_y": "backbone.guide3.of_context",
        "pag4.f_x": "backbone.guide4.of_detail",
        "pag4.f_y": "backbone.guide4.of_context",
        "diff3": "backbone.to_boundary3",
        "diff4": "backbone.to_boundary4",
        **pyramid_names("spp", "pyramid"),
        "dfm.conv_p": "fusion.detail",
        "dfm.conv_i": "fusion.context",
        **head_names("final_layer", "head"),
        **head_names("seghead_p", "auxiliary_head"),
        **head_names("seghead_d", "boundary_head"),
    },
    # A classifier of ImageNet needs the branch for context; which of the others it had differs between networks of this family.
    optional=(
        *(f"backbone.{branch}{level}" for branch in ("detail", "boundary") for level in (3, 4, 5)),
        *(f"backbone.{link}{level}" for link in ("to_detail", "to_boundary", "guide") for level in (3, 4)),
        "pyramid",
        "fusion",
        "head",
        "auxiliary_head",
        "boundary_head",
    ),
    classifiers=(f"head.{CLASSIFIER}", f"auxiliary_head.{CLASSIFIER}"),
    # The end of the classifier of ImageNet, and class weights of losses.
    foreign=("down5.", "last_layer.", "linear.", "sem_loss.", "sb_loss.", "bd_loss."),
)


class PIDNetSConfig(ScaledWeightsConfig):
    """Settings of `PIDNetS`."""

    name: Literal["pidnet_s"] = "pidnet_s"
    weights_file: Path | None = Field(
        None,
        description="local copy of a file of PIDNet-S for Cityscapes, CamVid or ImageNet, to which the README of "
        "github.com/XuJiacong/PIDNet links",
    )


class GuidedFusion(nn.Module):
    """PagFM: at each pixel as much context replaces detail as the two resemble each other."""

    # Their product is summed over channels, which says nothing about those of the result.
    fixed_width = ("of_detail", "of_context")

    def __init__(self, channels: int, width: int) -> None:
        """Build the layers.

        Args:
            channels: channels of detail, context and result.
            width: channels in which the two are compared.
        """
        super().__init__()
        self.of_detail = projection(channels, width)
        self.of_context = projection(channels, width)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map float [B, channels, H, W] and [B, channels, h, w] to float [B, channels, H, W]."""
        size = (detail.shape[2], detail.shape[3])
        similarity = self.of_detail(detail) * resize(self.of_context(context), size=size)
        trust: Tensor = similarity.sum(dim=1, keepdim=True).sigmoid()
        return (1 - trust) * detail + trust * resize(context, size=size)


class BoundaryGuidedFusion(nn.Module):
    """Light-Bag: near boundaries detail decides, elsewhere context."""

    def __init__(self, channels: int) -> None:
        """Build the layers.

        Args:
            channels: channels of all inputs and of the result.
        """
        super().__init__()
        self.detail = projection(channels, channels)
        self.context = projection(channels, channels)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """Map three float [B, channels, h, w] to another one; the boundary is unnormalized."""
        edge = boundary.sigmoid()
        result: Tensor = self.detail((1 - edge) * context + detail) + self.context(context + edge * detail)
        return result


class Branches(NamedTuple):
    """What the trunk computes.

    Attributes:
        exchanged: the branch for detail after it met context at 1/16, rectified, float [B, 2 * planes, ceil(H / 8), ceil(W / 8)].
        detail: its end, float [B, 4 * planes, ceil(H / 8), ceil(W / 8)].
        edges: the branch for boundaries after it met context twice, rectified, float [B, 2 * planes, ceil(H / 8), ceil(W / 8)].
        boundary: its end, float [B, 4 * planes, ceil(H / 8), ceil(W / 8)].
        context: end of the branch for context, float [B, 16 * planes, ceil(H / 64), ceil(W / 64)].
    """

    exchanged: Tensor
    detail: Tensor
    edges: Tensor
    boundary: Tensor
    context: Tensor


class ThreeBranchTrunk(nn.Module):
    """Two stages in common, then three branches: context goes down to 1/64, the other two stay at 1/8 and are told of it twice."""

    def __init__(self, planes: int) -> None:
        """Build the layers.

        Args:
            planes: channels at 1/4; the fine branches have twice as many, that for context 4 and 8 times, before their ends.
        """
        super().__init__()
        fine, low3, low4 = 2 * planes, 4 * planes, 8 * planes
        self.stem = stem(planes)
        self.quarter = stage(planes, planes, 2)
        self.eighth = stage(planes, fine, 2, stride=2)
        self.context3, self.context4 = stage(fine, low3, 3, stride=2), stage(low3, low4, 3, stride=2)
        self.context5 = nn.Sequential(Bottleneck(low4, low4, stride=2), Bottleneck(2 * low4, low4))
        self.detail3, self.detail4, self.detail5 = stage(fine, fine, 2), stage(fine, fine, 2), Bottleneck(fine, fine)
        self.boundary3, self.boundary4 = BasicBlock(fine, planes), Bottleneck(planes, planes)
        self.boundary5 = Bottleneck(fine, fine)
        self.to_detail3, self.to_detail4 = projection(low3, fine), projection(low4, fine)
        self.guide3, self.guide4 = GuidedFusion(fine, planes), GuidedFusion(fine, planes)
        self.to_boundary3 = projection(low3, planes, kernel_size=3)
        self.to_boundary4 = projection(low4, fine, kernel_size=3)

    def forward(self, image: Tensor) -> Branches:
        """Compute the features of float [B, 3, H, W]."""
        shared = self.eighth(self.quarter(self.stem(image)).relu()).relu()
        size = (shared.shape[2], shared.shape[3])
        context = self.context3(shared).relu()
        detail = self.guide3(self.detail3(shared), self.to_detail3(context)).relu()
        boundary = (self.boundary3(shared) + resize(self.to_boundary3(context), size=size)).relu()
        exchanged = detail
        context = self.context4(context).relu()
        detail = self.guide4(self.detail4(detail), self.to_detail4(context)).relu()
        boundary = (self.boundary4(boundary) + resize(self.to_boundary4(context), size=size)).relu()
        return Branches(exchanged, self.detail5(detail), boundary, self.boundary5(boundary), self.context5(context))


class PIDNetS(Segmenter):
    """The network.

    With 19 classes it has 7,720,935 parameters in training and 7,625,715 in use (without the heads that only training needs), and
    needs 47.7 G multiply-accumulates at 1024 x 2048 (47.5 G up to scores at 1/8). The end of the branch for context and the larger
    windows of the pyramid are a few pixels, or one, for small images: training wants large crops (1024 x 1024 in the paper).
    """

    Config: ClassVar[type[ModelConfig]] = PIDNetSConfig
    num_auxiliary: ClassVar[int] = 1
    training_only: ClassVar[tuple[str, ...]] = ("auxiliary_head", "boundary_head")
    trunk_module: ClassVar[str | None] = "backbone"

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build the network with Kaiming initialization; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        planes = scaled(_PLANES, config.width)
        self.backbone = ThreeBranchTrunk(planes)
        self.pyramid = ParallelAggregationPyramid(16 * planes, _PYRAMID, 4 * planes)
        self.fusion = BoundaryGuidedFusion(4 * planes)
        self.head = head(4 * planes, _HEAD, num_classes)
        self.auxiliary_head = head(2 * planes, _HEAD, num_classes)
        self.boundary_head = head(2 * planes, planes, 1)
        initialize_kaiming(self, mode="fan_out")

    def load_initial_weights(self) -> None:
        """Load the official weights that the configuration names; see `load_official_weights`."""
        load_official_weights(self, self.config, _NAMES)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`.

        Args:
            image: normalized, float [B, 3, H, W]; B at least 2 in training mode.
            auxiliary: whether to compute the auxiliary output and the boundary.

        Returns:
            Logits float [B, num_classes, H, W]; one auxiliary output of the same shape, from detail that met context once, or none;
            features float [B, 128 * width, ceil(H / 8), ceil(W / 8)], the three branches in one; boundary logits float
            [B, 1, H, W] with the auxiliary output.

        Raises:
            ConfigError: one image in training mode.
        """
        self.refuse_one_image(image)
        size = (image.shape[2], image.shape[3])
        branches: Branches = self.backbone(image)
        detail = branches.detail
        context = resize(self.pyramid(branches.context), size=(detail.shape[2], detail.shape[3]))
        features = self.fusion(detail, context, branches.boundary)
        logits = enlarge_scores(self.head(features), sizes=[size])
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        of_detail = enlarge_scores(self.auxiliary_head(branches.exchanged), sizes=[size])
        boundary = Boundary(enlarge_scores(self.boundary_head(branches.edges), sizes=[size]), "balanced")
        return SegmentationOutput(logits, (of_detail,), features, boundary)
