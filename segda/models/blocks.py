"""Parts that several networks share."""

from torch import Tensor, nn
from torch.nn import functional


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch normalization, ReLU.

    The normalization's shift does what a bias of the convolution would do.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1) -> None:
        """Build the three layers; the padding keeps the size at stride 1.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel_size: side of the square kernel, odd.
            stride: step of the kernel in pixels.
        """
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def resize(features: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly to an explicit size, pixel areas aligned (`align_corners=False`).

    Explicit sizes make every input size work; fixed factors only fit multiples of the network's stride.

    Args:
        features: float [B, C, h, w].
        size: height and width of the result.

    Returns:
        Float [B, C, *size]; the argument itself if it has that size already.
    """
    if features.shape[-2:] == size:
        return features
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=False)


def initialize_kaiming(module: nn.Module) -> None:
    """Draw the weights of every convolution for ReLU (He et al., ICCV 2015, fan in) and zero its bias.

    Args:
        module: changed in place, with all that it contains; batch normalizations start as the identity.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
