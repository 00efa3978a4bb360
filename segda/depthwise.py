"""Convolution whose depthwise form is not slower in training than it must be."""

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, but a depthwise one computes in single precision on a processor under autocast.

    There is no kernel for its gradient in bfloat16 on processors: with stride 2 or a 5x5 kernel it takes two to five times as
    long as in single precision, which is more than all that the other layers gain (`benchmarks/depthwise.py`). Parameters, their
    names and what comes out otherwise are those of `nn.Conv2d`.
    """

    def _conv_forward(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        is_depthwise = self.groups == self.in_channels > 1
        precise = is_depthwise and features.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not precise:
            plain: Tensor = super()._conv_forward(features, weight, bias)
            return plain
        with torch.autocast("cpu", enabled=False):
            result: Tensor = super()._conv_forward(features.float(), weight, bias)
        return result
