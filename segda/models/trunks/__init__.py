"""Trunks that networks are built on. One file each; a new one is a file and a line here."""

import inspect
from collections.abc import Callable

from segda.catalog import Catalog, maker_of
from segda.models.trunks.base import Pyramid, Trunk
from segda.models.trunks.efficientnet_lite import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2
from segda.models.trunks.mobilenet_v3 import mobilenet_v3_large
from segda.models.trunks.resnet import resnet18, resnet34, resnet50, resnet101
from segda.models.trunks.timm_features import timm_family
from segda.models.trunks.xception import xception39

BACKBONES: Catalog[Callable[..., Trunk]] = Catalog(
    "backbone",
    group="segda.backbones",
    built_in={
        "resnet18": resnet18,
        "resnet34": resnet34,
        "resnet50": resnet50,
        "resnet101": resnet101,
        "efficientnet_lite0": efficientnet_lite0,
        "efficientnet_lite1": efficientnet_lite1,
        "efficientnet_lite2": efficientnet_lite2,
        "mobilenet_v3_large": mobilenet_v3_large,
        "xception39": xception39,
    },
    check=maker_of(Trunk),
    families={"timm": timm_family},
)


def has_width(name: str) -> bool:
    """Return whether a trunk can be scaled: whether what makes it takes a `width`.

    Args:
        name: a key of `BACKBONES`.
    """
    return "width" in inspect.signature(BACKBONES[name]).parameters


def build_trunk(name: str, *, width: float = 1.0) -> Trunk:
    """Build a trunk with random weights.

    Args:
        name: a key of `BACKBONES`.
        width: factor on the channels of its layers, of a trunk that `has_width`; at any but 1 it has no published weights.
    """
    if width == 1:
        return BACKBONES[name]()
    trunk = BACKBONES[name](width=width)
    trunk.published = None
    return trunk


__all__ = ["BACKBONES", "Pyramid", "Trunk", "build_trunk", "has_width"]
