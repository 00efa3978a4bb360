"""A network of one's own: a U-Net of three levels, small enough for a processor."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from segda.models import ModelConfig, Segmenter
from segda.tunable import Choice
from segda.types import SegmentationOutput


class SmallUNetConfig(ModelConfig):
    """Settings of `SmallUNet`; all of them decide what it costs, which a sweep measures once for each."""

    name: str = "small_unet"
    width: Annotated[int, Choice(8, 16, 32)] = Field(16, ge=1, description="channels at full size, doubled per level")


class SmallUNet(Segmenter):
    """Two convolutions per level, halved twice, and back with what the levels above have seen.

    Source: Ronneberger, Fischer and Brox, U-Net, MICCAI 2015. Deviations: three levels instead of five, batch normalization, padded
    convolutions, and bilinear up-sampling instead of transposed convolutions, so that any size goes.
    """

    Config: ClassVar[type[ModelConfig]] = SmallUNetConfig

    def __init__(self, config: Any, *, num_classes: int) -> None:
        """Build it with random weights; see `Segmenter.__init__`."""
        super().__init__(config, num_classes=num_classes)
        widths = [config.width * 2**level for level in range(3)]
        self.down = nn.ModuleList(_block(below, width) for below, width in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(widths[level] + widths[level + 1], widths[level]) for level in (1, 0))
        self.head = nn.Conv2d(config.width, num_classes, 1)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        """Segment images; see `Segmenter.forward`. There are no auxiliary outputs."""
        levels: list[Tensor] = []
        for block in self.down:
            levels.append(block(functional.max_pool2d(levels[-1], 2) if levels else image))
        features = levels.pop()
        for block in self.up:
            above = levels.pop()
            coarse = functional.interpolate(features, above.shape[2:], mode="bilinear", align_corners=False)
            features = block(torch.cat([above, coarse], dim=1))
        return SegmentationOutput(self.head(features).float(), (), features)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
