"""Few-shot adversarial adaptation in two stages, on pairs of predictions (FSDA, reconstructed)."""

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.discriminators import DISCRIMINATORS, LightLight, build_discriminator
from segda.discriminators.inputs import probabilities
from segda.draws import Draws
from segda.losses import Loss, SegmentationLoss, mean, total
from segda.losses.adversarial import SOURCE_DOMAIN, TARGET_DOMAIN, adversarial_loss, domain_accuracy
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.named import OneOf
from segda.tunable import Choice, Range
from segda.types import IGNORE_INDEX

# Kinds of pairs of places that the second discriminator tells apart: twice whether the classes differ, plus the domain.
KINDS = 4


class FsdaConfig(TwoDomainConfig):
    """Settings of `Fsda`."""

    name: str = "fsda"
    lambda_few: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the supervised loss on the few labelled target images"
    )
    discriminator: Annotated[str, OneOf(DISCRIMINATORS), Choice("fcd", "dwd", "light_light")] = Field(
        "fcd", description="of the image level, a name in the table of `segda.discriminators`"
    )
    lambda_image: Annotated[float, Range(1e-4, 1e-1, log=True)] = Field(
        1e-3, ge=0, description="weight of the adversarial loss of the image level"
    )
    lambda_structure: Annotated[float, Range(1e-4, 1e-1, log=True)] = Field(
        1e-3, ge=0, description="weight of the adversarial loss of the structure level, in the second stage"
    )
    first_stage: Annotated[float, Range(0.1, 0.9)] = Field(
        0.5, ge=0, le=1, description="share of the training that has the image level alone; 1: there is no second stage"
    )


class Pairs(NamedTuple):
    """Predictions of two images each, on top of each other.

    Attributes:
        maps: class probabilities of both, float [B, 2 C, H, W].
        kind: 0 where both places have the same class, 2 where not, `IGNORE_INDEX` where one is void; int64 [B, H, W].
    """

    maps: Tensor
    kind: Tensor


class Fsda(Method):
    """Make pairs with a target image look like pairs of source images: first as a whole, then class by class.

    pairs       = (source, source), (source, few), (few, few): softmax(P(a)) on top of softmax(P(b)), b moved by a random offset
    L           = L_seg(source) + lambda_few * L_seg(few)
                  + lambda_image * L_D(D_image(pairs with few), SOURCE)
                  + lambda_structure * CE(D_structure(pairs with few), same or different classes, SOURCE)      in the second stage
    L_image     = 1/2 L_D(D_image(source, source), SOURCE) + 1/2 L_D(D_image(pairs with few), TARGET)
    L_structure = 1/2 CE(D_structure(source, source), same or different, SOURCE) + 1/2 CE(D_structure(pairs with few), same or
                  different, TARGET)

    Losses of pairs with few are means of those of (source, few) and (few, few). D_image says of what domain a pair is. D_structure
    says of each place of 8 x 8 pixels one of four: whether the two images have the same class there, by their labels, and of what
    domain the pair is. So a road of the target has to go with a road of the source as two roads of the source do.

    This is a RECONSTRUCTION: neither code nor full text of the paper could be had. Known are that a few target images with labels
    are used and no others; that the network is a scene parser with two discriminators, adversarial in two stages; and that images
    are paired, which makes many pairs of few images and full use of their labels. Put in here:

    - what a pair is for the discriminators. Same and different classes in one and in two domains are the four groups of few-shot
      adversarial adaptation of classifiers (Motiian et al., Few-Shot Adversarial Domain Adaptation, NeurIPS 2017,
      arXiv:1711.02536), where two discriminators see them one after the other: domains first, then groups;
    - pairs of two places in one image, by the offset, in the place of two images of one domain, so that a batch may be cut in
      parts. Offsets are a quarter to three quarters of each side, around the edges, and drawn anew for each image and step; so
      each of the few images meets every source image that it shares a step with, at thousands of offsets;
    - the second stage begins at a share of the training and keeps the first one's loss; both discriminators learn from the start,
      so that the second one knows something when it is asked;
    - predictions of source images in a pair with a target image have no gradient: the source is what the target moves to, as in
      AdaptSegNet (`segda.methods.adversarial`), whose weights of the loss are the defaults here. D_image is any discriminator of
      segmentations, on twice the channels; D_structure is `light_light` with four outputs.

    Source: Zhang, Chen, Huang, Lin and Zhang, Few-Shot Structured Domain Adaptation for Virtual-to-Real Scene Parsing, ICCV
    workshops 2019.
    """

    Config: ClassVar[type[MethodConfig]] = FsdaConfig
    has_discriminator: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False
    needs_few_shot: ClassVar[bool] = True
    reconstruction: ClassVar[bool] = True

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Build both discriminators; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        self.of_images = build_discriminator(config.discriminator, num_classes=2 * num_classes)
        self.of_structures = LightLight(2 * num_classes, outputs=KINDS)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the segmenter's and both discriminators' parameters."""
        return {
            "segmenter": list(self.segmenter.parameters()),
            "discriminator": [*self.of_images.parameters(), *self.of_structures.parameters()],
        }

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the losses of segmenter and discriminators; see `Method.training_step`."""
        assert step.few_shot is not None
        config = self.config
        source, few = forward_domains(self.segmenter, step.labeled.image, step.few_shot.image, mixing=config.batch_norm)
        loss_seg = self.loss(source, step.labeled.label)
        loss_few = self.loss(few, step.few_shot.label)

        of_source = (probabilities(source.logits.detach()), step.labeled.label)
        of_few = (probabilities(few.logits), step.few_shot.label)
        within = pair(*of_source, *of_source, draws=step.draws, purpose="source and source")
        across = [
            pair(*of_source, *of_few, draws=step.draws, purpose="source and few"),
            pair(*of_few, *of_few, draws=step.draws, purpose="few and few"),
        ]
        image_within, *image_across = (self.of_images(pairs.maps) for pairs in (within, *across))
        structure_within, *structure_across = (self.of_structures(pairs.maps) for pairs in (within, *across))

        loss_image = _mean([adversarial_loss(logits, SOURCE_DOMAIN) for logits in image_across])
        loss_structure = _mean(
            [
                kind_loss(logits, pairs.kind, SOURCE_DOMAIN)
                for logits, pairs in zip(structure_across, across, strict=True)
            ]
        )
        loss_discriminator = total(
            [
                0.5 * adversarial_loss(image_within, SOURCE_DOMAIN),
                0.5 * _mean([adversarial_loss(logits, TARGET_DOMAIN) for logits in image_across]),
                0.5 * kind_loss(structure_within, within.kind, SOURCE_DOMAIN),
                0.5
                * _mean(
                    [
                        kind_loss(logits, pairs.kind, TARGET_DOMAIN)
                        for logits, pairs in zip(structure_across, across, strict=True)
                    ]
                ),
            ]
        )
        in_second_stage = step.progress >= config.first_stage
        loss_adv = (
            config.lambda_image * loss_image + (config.lambda_structure if in_second_stage else 0.0) * loss_structure
        )
        return StepOutput(
            losses={
                "discriminator": loss_discriminator,
                "segmenter": loss_seg + config.lambda_few * loss_few + loss_adv,
            },
            logs={
                "loss_seg": loss_seg,
                "loss_few": loss_few,
                "loss_adv": loss_adv,
                "loss_discriminator": loss_discriminator,
                "discriminator_accuracy_source": domain_accuracy(image_within, SOURCE_DOMAIN),
                "discriminator_accuracy_target": _mean(
                    [domain_accuracy(logits, TARGET_DOMAIN) for logits in image_across]
                ),
            },
        )


def pair(
    probs: Tensor, label: Tensor, other_probs: Tensor, other_label: Tensor, *, draws: Draws, purpose: str
) -> Pairs:
    """Put the prediction of another image, moved around, on top of that of each image.

    Args:
        probs: of the first images, float [B, C, H, W].
        label: theirs, int64 [B, H, W].
        other_probs: of the second images, like `probs`; they may be the same.
        other_label: theirs.
        draws: where the offsets come from.
        purpose: of the draws.
    """
    moved_probs, moved_label = [], []
    for number in range(len(label)):
        generator = draws.generator(number, purpose)
        offset = tuple(
            int(torch.randint(side // 4, side - side // 4, (), generator=generator)) for side in label.shape[1:]
        )
        moved_probs.append(other_probs[number].roll(offset, dims=(1, 2)))
        moved_label.append(other_label[number].roll(offset, dims=(0, 1)))
    second = torch.stack(moved_label)
    kind = 2 * (label != second).long()
    is_void = (label == IGNORE_INDEX) | (second == IGNORE_INDEX)
    return Pairs(torch.cat([probs, torch.stack(moved_probs)], dim=1), kind.masked_fill(is_void, IGNORE_INDEX))


def kind_loss(logits: Tensor, kind: Tensor, domain: int) -> Loss:
    """Return the cross-entropy of kinds of pairs of places with what they are, or are to pass for.

    Args:
        logits: of a discriminator of stride 8, float [B, 4, H // 8, W // 8].
        kind: of pairs, int64 [B, H, W]; that in the middle of what an output sees counts.
        domain: `SOURCE_DOMAIN` or `TARGET_DOMAIN`, which is added to it.

    Returns:
        A mean over the places where both images have labels, in nats; zero if there are none.
    """
    stride = LightLight.stride
    height, width = logits.shape[2:]
    middle = kind[:, stride // 2 :: stride, stride // 2 :: stride][:, :height, :width]
    is_known = middle != IGNORE_INDEX
    wanted = torch.where(is_known, middle + domain, IGNORE_INDEX)
    with torch.autocast(logits.device.type, enabled=False):
        added = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORE_INDEX, reduction="sum")
        return mean(added, is_known.sum())


def _mean(losses: list[Loss]) -> Loss:
    return 1 / len(losses) * total(losses)
