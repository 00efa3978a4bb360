"""Context from averages over ever larger windows of small features: DAPPM (DDRNet, SCTNet) and PAPPM (PIDNet).

The largest windows have steps of 8 pixels at 1/64: of images of up to 512 pixels one is left. To `torch.export` a map of one pixel
is another case than one of several, unless a program for many sizes is captured as `segda.deployment.program` does.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from segda.models.blocks import BNReLUConv, in_full_precision, pool, resize

# Side and step of the windows, in pixels of the features; beside them stand the features themselves and their global average.
_WINDOWS = ((5, 2), (9, 4), (17, 8))


class PoolingPyramid(nn.Module):
    """The parts that both have: five scales, a 1x1 convolution that joins them, and a shortcut.

    Attributes:
        scales: to few channels: the features, their averages over windows, their global average.
        compress: joins what became of the scales.
        shortcut: past all of them.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, *, bias: bool = False) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the features.
            width: channels of each scale.
            out_channels: channels of the result.
            bias: whether convolutions have one.
        """
        super().__init__()
        count = len(_WINDOWS) + 2
        self.scales = nn.ModuleList(BNReLUConv(in_channels, width, bias=bias) for _ in range(count))
        self.compress = BNReLUConv(count * width, out_channels, bias=bias)
        self.shortcut = BNReLUConv(in_channels, out_channels, bias=bias)

    def levels(self, features: Tensor) -> list[Tensor]:
        """Compute the scales at the size of the features.

        Args:
            features: float [B, in_channels, h, w].

        Returns:
            Float [B, width, h, w] each; the last one, the global average, [B, width, 1, 1], which broadcasts to it.
        """
        size, precise = (features.shape[2], features.shape[3]), pool(features)
        # Zeros around the image count as pixels: the published networks have learned with it.
        averages = [
            functional.avg_pool2d(features.to(precise.dtype), side, step, padding=side // 2, count_include_pad=True)
            for side, step in _WINDOWS
        ]
        fine, *coarse = self.scales
        few = [in_full_precision(scale, maps) for scale, maps in zip(coarse, (*averages, precise), strict=True)]
        own = fine(features)
        enlarged = [resize(maps, size=size).to(own.dtype) for maps in few[:-1]]
        return [own, *enlarged, few[-1].to(own.dtype)]


class DeepAggregationPyramid(PoolingPyramid):
    """DAPPM: a cascade in which each larger window is added to what became of the next smaller one and convolved.

    Source: Hong et al., arXiv:2101.06085, section 3.3.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int, *, bias: bool = False) -> None:
        """Build the layers; see `PoolingPyramid.__init__`."""
        super().__init__(in_channels, width, out_channels, bias=bias)
        self.refine = nn.ModuleList(
            BNReLUConv(width, width, kernel_size=3, bias=bias) for _ in range(len(self.scales) - 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, h, w]."""
        fine, *coarse = self.levels(features)
        cascade = [fine]
        for refine, level in zip(self.refine, coarse, strict=True):
            cascade.append(refine(level + cascade[-1]))
        result: Tensor = self.compress(torch.cat(cascade, dim=1)) + self.shortcut(features)
        return result


class ParallelAggregationPyramid(PoolingPyramid):
    """PAPPM: the windows are added to the features one beside the other, and convolved at once, each on its own (groups).

    Source: Xu et al., CVPR 2023, section 3.3.
    """

    def __init__(self, in_channels: int, width: int, out_channels: int) -> None:
        """Build the layers; see `PoolingPyramid.__init__`."""
        super().__init__(in_channels, width, out_channels)
        count = len(self.scales) - 1
        self.refine = BNReLUConv(count * width, count * width, kernel_size=3, groups=count)

    def forward(self, features: Tensor) -> Tensor:
        """Map float [B, in_channels, h, w] to float [B, out_channels, h, w]."""
        fine, *coarse = self.levels(features)
        joined = self.refine(torch.cat([level + fine for level in coarse], dim=1))
        result: Tensor = self.compress(torch.cat([fine, joined], dim=1)) + self.shortcut(features)
        return result


def pyramid_names(official: str, own: str) -> Mapping[str, str]:
    """Return how the parts of a pyramid are called in the files of its authors, for `OfficialNames`.

    Args:
        official: what the pyramid is called there.
        own: what it is called here.
    """
    names = {f"{official}.scale0": f"{own}.scales.0", f"{official}.scale_process": f"{own}.refine"}
    for number in range(1, len(_WINDOWS) + 2):
        # There the pooling is the first layer of a scale, here it is none.
        names |= {f"{official}.scale{number}.{index + 1}": f"{own}.scales.{number}.{index}" for index in (0, 2)}
        names[f"{official}.process{number}"] = f"{own}.refine.{number - 1}"
    return names | {f"{official}.compression": f"{own}.compress", f"{official}.shortcut": f"{own}.shortcut"}
