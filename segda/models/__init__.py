"""Segmentation networks and their trunks.

A network is a class with `__init__(backbone, *, num_classes)` whose forward returns `SegmentationOutput` in training
and in evaluation mode. It names the submodules that only training needs in `training_only`. One line in `MODELS`
makes it known.
"""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from segda.catalog import Catalog, function, subclass_of
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.pretrained import PretrainedName, load_imagenet_weights
from segda.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101

MODELS: Catalog[Callable[..., nn.Module]] = Catalog(
    "network",
    group="segda.models",
    built_in={"bisenet_v1": BiSeNetV1},
    check=subclass_of(nn.Module),
)

BACKBONES: Catalog[Callable[[], ResNet]] = Catalog(
    "backbone",
    group="segda.backbones",
    built_in={"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101},
    check=function,
)


def build_segmenter(
    name: str,
    *,
    num_classes: int,
    backbone: str,
    pretrained: PretrainedName,
    weights_file: Path | None = None,
) -> nn.Module:
    """Build a network, in training mode on the CPU.

    Args:
        name: key of `MODELS`.
        num_classes: number of train ids, at least 2.
        backbone: key of `BACKBONES`.
        pretrained: `imagenet` loads the trunk's weights (see `load_imagenet_weights`), `none` leaves them random.
        weights_file: local file with the trunk's weights; only read with `pretrained="imagenet"`.

    Returns:
        A module that maps an image float [B, 3, H, W] to `SegmentationOutput`.

    Raises:
        ConfigError: unknown network or trunk, or fewer than two classes.
        WeightsError: the weights cannot be had or do not fit.
    """
    network, trunk = MODELS[name], BACKBONES[backbone]()
    load_imagenet_weights(trunk, name=backbone, pretrained=pretrained, weights_file=weights_file)
    return network(trunk, num_classes=num_classes)
