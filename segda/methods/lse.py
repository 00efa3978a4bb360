"""Learning from scale-invariant examples (LSE): what a frozen copy says of a patch must also be said of the patch enlarged."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.losses import SegmentationLoss
from segda.losses.cross_entropy import cross_entropy
from segda.losses.focal import focal
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig, equal_rounds
from segda.methods.ranking import class_averages, label_below, select_images
from segda.methods.teacher import copy_weights, make_teacher
from segda.tunable import Choice, Range
from segda.types import IGNORE_INDEX, PseudoLabel

ZOOM = 2  # a patch has 1 / ZOOM of each side of the image


class LseConfig(TwoDomainConfig):
    """Settings of `Lse`; defaults are those of the paper and its code."""

    name: Literal["lse"] = "lse"
    warm_up: Annotated[float, Range(0.2, 0.7)] = Field(
        0.4, ge=0, lt=1, description="share of the training that precedes the first round, on the source alone"
    )
    rounds: Annotated[int, Choice(2, 4, 7)] = Field(
        7, ge=1, le=100, description="how often examples are selected, at equal distances (LSE: 7)"
    )
    portion: Annotated[float, Range(0.05, 0.5)] = Field(
        0.1, gt=0, le=1, description="share of the images that is selected in the first round, by all classes together"
    )
    portion_step: Annotated[float, Range(0.0, 0.2)] = Field(
        0.05, ge=0, le=1, description="what each round adds to the portion"
    )
    portion_max: Annotated[float, Range(0.2, 1.0)] = Field(
        0.4, gt=0, le=1, description="the portion never exceeds this"
    )
    thresholds: Annotated[Literal["dynamic", "constant"], Choice("dynamic", "constant")] = Field(
        "dynamic",
        description="how uncertain pixels may be: as on the image below the cut, for each class, or all alike",
    )
    entropy: Annotated[float, Range(0.1, 0.8)] = Field(
        0.3,
        gt=0,
        le=1,
        description="entropy, from 0 to 1 over the pixels of an image and class, that labelled pixels stay below; used by "
        "thresholds: constant",
    )
    lambda_target: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the cross-entropy on enlarged patches"
    )
    lambda_focal: Annotated[float, Range(0.01, 1.0, log=True)] = Field(
        0.1, ge=0, description="weight of the focal loss on enlarged patches (beta), which comes on top"
    )
    gamma: Annotated[float, Range(1.0, 5.0)] = Field(3.0, ge=0, description="exponent of the focal loss")


class Lse(Method):
    """Train on the source, and on patches of target images at twice the size, with labels from the patches as they are.

    L = L_seg(source) + lambda_target * CE(enlarged, label) + lambda_focal * mean((1 - p)^gamma * CE)(enlarged, label)

    At the beginning of round r the network is copied, and with the portion portion + (r - 1) * portion_step the copy selects the
    images to draw from and the pixels to learn from (`segda.methods.ranking`). In a step, a random patch of half the height and
    width is cut from each image; the patch, the copy's probabilities and the mask of pixels to learn from are enlarged to the
    image's size, and the label is the class of the highest enlarged probability. Enlarging class numbers instead would draw
    staircases along every border.

    Source: Subhani and Ali, Learning from Scale-Invariant Examples for Domain Adaptation in Semantic Segmentation, ECCV 2020,
    arXiv:2007.14449, and its code. Deviations, so that a run is one training of a given length that can be compared with those of
    other methods, as in `segda.methods.self_training`: rounds have equally many steps, and the first one comes after the share
    `warm_up` of the run on the source alone, in which the code begins from a network that was trained on the source. Further ones:

    - a step sees one patch of each drawn image instead of four patches one after the other;
    - images are augmented by the recipe before the patch is cut, in geometry, color and scale, and the copy sees them so too; the
      authors augment nothing. The copy therefore predicts in each step what they store;
    - a pixel is learned from if the enlarged mask is at least 0.5 there. In the code it only has to differ from 0, so that labels
      leak over the mask's borders;
    - what small sets of images need, in `segda.methods.ranking`;
    - auxiliary outputs learn from the source alone.
    """

    Config: ClassVar[type[MethodConfig]] = LseConfig
    draws_labeled_only: ClassVar[bool] = True

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Copy the segmenter; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        self.frozen = make_teacher(
            segmenter
        )  # no `teacher` for others to ask: it knows nothing before it is first copied

    def train(self, mode: bool = True) -> Self:
        """Switch the segmenter to training or evaluation mode; the frozen copy stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss, and in rounds the losses on enlarged patches; see `Method.training_step`."""
        if step.target.pseudo_label is None:
            loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
            return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
        image, label = self._examples(step, step.target.pseudo_label)
        source, enlarged = forward_domains(
            self.segmenter, step.labeled.image, image, mixing=self.config.batch_norm, target_auxiliary=False
        )
        loss_seg = self.loss(source, step.labeled.label)
        loss_target = cross_entropy(enlarged.logits, label)
        loss_focal = focal(enlarged.logits, label, gamma=self.config.gamma)
        weighted = self.config.lambda_target * loss_target + self.config.lambda_focal * loss_focal
        return StepOutput(
            losses={"segmenter": loss_seg + weighted},
            logs={"loss_seg": loss_seg, "loss_target": loss_target, "loss_focal": loss_focal},
        )

    def round_starts(self) -> tuple[float, ...]:
        """Return equal distances after the warm-up; see `Method.round_starts`."""
        warm_up = self.config.warm_up
        return equal_rounds(warm_up, 1 - warm_up, rounds=self.config.rounds)

    def begin_round(self, number: int) -> None:
        """Copy the segmenter; see `Method.begin_round`."""
        copy_weights(self.frozen, self.segmenter)

    def pseudo_labels(self, images: Iterable[Tensor], *, number: int) -> Iterator[PseudoLabel]:
        """Yield what the copy is sure of on the selected images, and void on the others; see `Method.pseudo_labels`."""
        averages = [class_averages(self._probs(image)) for image in images]
        confidence, entropy = (torch.cat(parts).cpu() for parts in zip(*averages, strict=True))
        config = self.config
        portion = min(config.portion + (number - 1) * config.portion_step, config.portion_max)
        selected, thresholds = select_images(confidence, entropy, portion=portion)
        if config.thresholds == "constant":
            thresholds = torch.full_like(thresholds, config.entropy)
        first = 0
        for image in images:
            own = selected[first : first + len(image)]
            first += len(image)
            label = torch.full((len(image), *image.shape[2:]), IGNORE_INDEX, device=image.device)
            if own.any():
                # All of the batch: in another company a network computes other last bits.
                label = label_below(self._probs(image), thresholds)
                label[~own.to(label.device)] = IGNORE_INDEX
            yield PseudoLabel(label)

    @torch.no_grad()
    def _examples(self, step: StepInput, pseudo_label: PseudoLabel) -> tuple[Tensor, Tensor]:
        """Return enlarged patches, float [B, 3, H, W], and their labels, int64 [B, H, W]."""
        image = step.target.image
        probs = self._probs(image)
        mask = (pseudo_label.label != IGNORE_INDEX).unsqueeze(1).to(probs.dtype)
        places = draw_patches(
            image.shape[2:], generators=[step.draws.generator(number, "patch") for number in range(len(image))]
        )
        patch, probs, mask = (enlarge(tensor, places) for tensor in (image, probs, mask))
        return patch, probs.max(1).indices.masked_fill(mask[:, 0] < 0.5, IGNORE_INDEX)

    def _probs(self, image: Tensor) -> Tensor:
        logits: Tensor = self.frozen(image, auxiliary=False).logits
        return logits.float().softmax(dim=1)


def draw_patches(size: torch.Size, *, generators: list[torch.Generator]) -> list[tuple[slice, slice]]:
    """Draw a patch of each image.

    Args:
        size: height and width of the images, pixels.
        generators: of each image, on the CPU.

    Returns:
        Rows and columns of each patch; 1 / `ZOOM` of the height and of the width, rounded up, anywhere in the image.
    """

    def part(length: int, generator: torch.Generator) -> slice:
        kept = -(-length // ZOOM)
        first = int(torch.randint(length - kept + 1, (), generator=generator))
        return slice(first, first + kept)

    height, width = size
    return [(part(height, generator), part(width, generator)) for generator in generators]


def enlarge(images: Tensor, places: list[tuple[slice, slice]]) -> Tensor:
    """Enlarge a patch of each image to the image's size, bilinearly, with the patch's corner pixels at the image's corners.

    Args:
        images: float [B, K, H, W].
        places: rows and columns of each patch; all patches have one size.

    Returns:
        float [B, K, H, W].
    """
    patches = torch.stack([image[:, rows, columns] for image, (rows, columns) in zip(images, places, strict=True)])
    return F.interpolate(patches, images.shape[2:], mode="bilinear", align_corners=True)
