"""Trunks that networks are built on. One file each; a new one is a file and a line here."""

from collections.abc import Callable

from segda.catalog import Catalog, maker_of
from segda.models.trunks.base import Pyramid, Trunk
from segda.models.trunks.efficientnet_lite import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2
from segda.models.trunks.mobilenet_v3 import mobilenet_v3_large
from segda.models.trunks.resnet import resnet18, resnet34, resnet50, resnet101

BACKBONES: Catalog[Callable[[], Trunk]] = Catalog(
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
    },
    check=maker_of(Trunk),
)

__all__ = ["BACKBONES", "Pyramid", "Trunk"]
