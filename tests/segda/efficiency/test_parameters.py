import pytest
import torch
from torch import nn

from segda.efficiency import count_parameters
from segda.models import build_segmenter
from segda.models.bisenet_v1 import BiSeNetV1


@pytest.mark.parametrize(("backbone", "num_classes", "heads"), [("resnet18", 19, 14_630), ("resnet101", 12, 36_888)])
def test_the_auxiliary_heads_are_not_counted(backbone: str, num_classes: int, heads: int) -> None:
    with torch.device("meta"):
        segmenter = build_segmenter(BiSeNetV1.Config(backbone=backbone), num_classes=num_classes, pretrained=False)
    everything = sum(parameter.numel() for parameter in segmenter.parameters())

    assert count_parameters(segmenter) == everything - heads


def test_buffers_are_not_counted_and_shared_weights_count_once() -> None:
    linear = nn.Linear(3, 3)

    assert count_parameters(nn.Sequential(linear, nn.BatchNorm1d(3), linear)) == 3 * 3 + 3 + 2 * 3
