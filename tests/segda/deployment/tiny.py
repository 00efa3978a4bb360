"""A small network, and images to show to it."""

from typing import Any

import torch
from torch import Tensor, nn

from segda.models import ModelConfig, Segmenter
from segda.models.blocks import ConvBNReLU, enlarge_scores
from segda.types import SegmentationOutput

CLASSES = 4


class Tiny(Segmenter):
    """Three convolutions, scores at 1/8, and a head that only training needs."""

    Config = ModelConfig
    num_auxiliary = 1
    training_only = ("auxiliary_head",)

    def __init__(self, config: Any = None, *, num_classes: int = CLASSES) -> None:
        super().__init__(config or ModelConfig(name="tiny"), num_classes=num_classes)
        self.layers = nn.Sequential(
            ConvBNReLU(3, 8, stride=2), ConvBNReLU(8, 16, stride=2), ConvBNReLU(16, 16, stride=2)
        )
        self.head = nn.Conv2d(16, num_classes, 1)
        self.auxiliary_head = nn.Conv2d(16, num_classes, 1)

    def between(self, features: Tensor) -> Tensor:
        return features

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        features = self.between(self.layers(image))
        size = (image.shape[2], image.shape[3])
        logits = enlarge_scores(self.head(features), sizes=[size])
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        return SegmentationOutput(logits, (enlarge_scores(self.auxiliary_head(features), sizes=[size]),), features)


def build(kind: type[Segmenter] = Tiny) -> Segmenter:
    """Build a network whose normalizations have seen images, so that it does not say the same of all pixels."""
    torch.manual_seed(0)
    network = kind(None)
    with torch.no_grad():
        for _ in range(20):
            network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def images(count: int, height: int, width: int) -> Tensor:
    """Draw blots of colour, uint8 [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 7, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (fine * 255).round().to(torch.uint8)
