"""The checks of networks catch networks that do not hold what they promise."""

from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from segda.models import ModelConfig, Segmenter
from segda.models.blocks import resize
from segda.testing.models import check_segmenter
from segda.types import Boundary, SegmentationOutput


class Config(ModelConfig):
    initial_weights: ClassVar[frozenset[str]] = frozenset({"weights"})
    name: Literal["small"] = "small"
    width: int = 4
    weights: str = "none"


class Small(Segmenter):
    """Keeps the contract with three convolutions."""

    Config: ClassVar[type[ModelConfig]] = Config
    num_auxiliary = 1
    training_only = ("head",)

    def __init__(self, config: Any, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.stem = nn.Conv2d(3, config.width, 3, stride=2, padding=1)
        self.classifier = nn.Conv2d(config.width, num_classes, 1)
        self.head = nn.Conv2d(config.width, num_classes, 1)

    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        features = self.stem(image).relu()
        size = (image.shape[2], image.shape[3])
        logits = resize(self.classifier(features).float(), size=size)
        if not (self.training if auxiliary is None else auxiliary):
            return SegmentationOutput(logits, (), features)
        return SegmentationOutput(logits, (resize(self.head(features).float(), size=size),), features)


def test_a_network_that_keeps_the_contract_passes() -> None:
    check_segmenter(Small, Config())


class ReturnsALogitTensor(Small):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> Any:
        return super().forward(image, auxiliary=auxiliary).logits


class EnlargesByAFixedFactor(Small):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        output = super().forward(image, auxiliary=auxiliary)
        return output._replace(logits=output.logits[..., : image.shape[3] // 2 * 2])


class MixesTheBatch(Small):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        return super().forward(image - image.mean(0, keepdim=True), auxiliary=auxiliary)


class StaysInHalfPrecision(Small):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        output = super().forward(image, auxiliary=auxiliary)
        return output._replace(logits=output.logits.to(output.features.dtype))


class AlwaysSaysWhereClassesMeet(Small):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        output = super().forward(image, auxiliary=auxiliary)
        return output._replace(boundary=Boundary(output.logits[:, :1], "detail"))


class SaysWhereEachClassEnds(AlwaysSaysWhereClassesMeet):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        output = super().forward(image, auxiliary=auxiliary)
        return output._replace(boundary=Boundary(output.logits, "detail") if self.training else None)


class ForgetsBoundary(AlwaysSaysWhereClassesMeet):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        output = super().forward(image, auxiliary=auxiliary)
        return output if self.training else output._replace(boundary=None)


class ShipsItsHead(Small):
    training_only = ()


class HasDeadWeights(Small):
    def __init__(self, config: Any, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.imagenet_classifier = nn.Linear(4, 1000)


class ForgetsAuxiliary(Small):
    def forward(self, image: Tensor, *, auxiliary: bool | None = None) -> SegmentationOutput:
        return super().forward(image, auxiliary=None)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (ReturnsALogitTensor, "returns SegmentationOutput"),
        (EnlargesByAFixedFactor, r"logits must have the shape \(2, 5, 65, 97\)"),
        (MixesTheBatch, "must not depend on its batch"),
        (StaysInHalfPrecision, r"float32 under autocast, got torch\.bfloat16"),
        (ShipsItsHead, r"must be those in training_only, \[\], got \['head'\]"),
        (HasDeadWeights, r"not so imagenet_classifier\.weight"),
        (AlwaysSaysWhereClassesMeet, "there must be no boundary output for .* in evaluation mode"),
        (SaysWhereEachClassEnds, r"boundary logits must have the shape \(2, 1, 64, 96\) .*, got \(2, 5, 64, 96\)"),
        (ForgetsBoundary, "auxiliary=False must give no boundary output"),
        (ForgetsAuxiliary, "auxiliary=False must give 0 auxiliary outputs, got 1"),
    ],
)
def test_a_network_that_breaks_the_contract_is_caught(kind: type[Segmenter], sentence: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=sentence):
        check_segmenter(kind, Config())


def test_initial_weights_without_default_are_caught() -> None:
    class Required(Config):
        weights: str

    class Other(Small):
        Config: ClassVar[type[ModelConfig]] = Required

    with pytest.raises(AssertionError, match="weights says where initial weights come from and needs a default"):
        check_segmenter(Other, Required(weights="none"))
