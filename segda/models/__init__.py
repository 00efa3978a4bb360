"""Segmentation networks and their trunks.

A network is a class with `__init__(backbone, *, num_classes)` whose forward returns `SegmentationOutput` in training
and in evaluation mode. It names the submodules that only training needs in `training_only`. One line in `MODELS`
makes it known.
"""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from segda.errors import ConfigError
from segda.models.bisenet_v1 import BiSeNetV1
from segda.models.pretrained import PretrainedName, load_imagenet_weights
from segda.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from segda.names import nearest

MODELS: dict[str, Callable[..., nn.Module]] = {
    "bisenet_v1": BiSeNetV1,
}

BACKBONES: dict[str, Callable[[], ResNet]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
}


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
    if name not in MODELS:
        raise ConfigError(f"unknown network {name!r}{nearest(name, MODELS)}; known: {', '.join(sorted(MODELS))}")
    if backbone not in BACKBONES:
        raise ConfigError(
            f"unknown backbone {backbone!r}{nearest(backbone, BACKBONES)}; known: {', '.join(sorted(BACKBONES))}"
        )
    trunk = BACKBONES[backbone]()
    load_imagenet_weights(trunk, name=backbone, pretrained=pretrained, weights_file=weights_file)
    return MODELS[name](trunk, num_classes=num_classes)
