"""Weights of source pixels by how much their predictions look like the target's (NAAE, reconstructed)."""

from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.discriminators import build_discriminator
from segda.discriminators.inputs import probabilities
from segda.losses import SegmentationLoss
from segda.losses.adversarial import SOURCE_DOMAIN, TARGET_DOMAIN, discriminator_loss, domain_accuracy
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.tunable import Range
from segda.types import IGNORE_INDEX


class NaaeConfig(TwoDomainConfig):
    """Settings of `Naae`."""

    name: str = "naae"
    lambda_few: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the supervised loss on the few labelled target images"
    )


class Naae(Method):
    """Supervised training in which source pixels count as much as they look like the target.

    w          = sigmoid(D(softmax(P(source)))) per pixel, divided by its mean over the labelled pixels of the image; no gradient
    L          = L_seg(source, w) + lambda_few * L_seg(few labelled target images)
    L_weighting = 1/2 BCE(D(softmax(P(source))), SOURCE) + 1/2 BCE(D(softmax(P(few))), TARGET)

    The sigmoid is the probability, as D has it, that a pixel of the source is one of the target's.

    This is a RECONSTRUCTION: neither code nor full text of the paper could be had. Known are its setting (many synthetic images and
    a few real ones, all labelled; nothing unlabelled), that networks which read the segmenter's predictions rather than the images
    weigh source pixels and are trained together with it, and that weighing pixels does better than choosing images. Put in here:

    - what the weighting network is and learns: the pixel-wise discriminator of PixDA, to tell the domains of predictions;
    - one weight for a pixel, where the paper has one per class as well, and levels of regions and images;
    - the mean of 1, and over an image: it keeps the balance of the terms whatever D says of all pixels together, for every loss and
      however a batch is cut;
    - D learns on the images that the segmenter does. Unlabelled target images could teach it too, but then the method would see
      what `joint`, which it is to be compared with, does not.

    An undecided D gives every pixel the weight 1: that is `joint`, and where training begins.

    Source: Sun, Zhu, Wu, Huang, Shi and Ma, Not All Areas Are Equal: Transfer Learning for Semantic Segmentation via Hierarchical
    Region Selection, CVPR 2019.
    """

    Config: ClassVar[type[MethodConfig]] = NaaeConfig
    has_discriminator: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False
    needs_few_shot: ClassVar[bool] = True
    reconstruction: ClassVar[bool] = True

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Build the weighting network; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        self.weighting = build_discriminator("pixel", num_classes=num_classes)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the segmenter's and the weighting network's parameters."""
        return {
            "segmenter": list(self.segmenter.parameters()),
            "discriminator": list(self.weighting.parameters()),
        }

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the losses of segmenter and weighting network; see `Method.training_step`."""
        assert step.few_shot is not None
        source, few = forward_domains(
            self.segmenter, step.labeled.image, step.few_shot.image, mixing=self.config.batch_norm
        )
        source_domain = self.weighting(probabilities(source.logits.detach()))
        few_domain = self.weighting(probabilities(few.logits.detach()))
        weight = relative_weight(source_domain.detach().squeeze(1), step.labeled.label)
        loss_seg = self.loss(source, step.labeled.label, weight)
        loss_few = self.loss(few, step.few_shot.label)
        loss_discriminator = discriminator_loss(source_domain, few_domain)
        return StepOutput(
            losses={
                "discriminator": loss_discriminator,
                "segmenter": loss_seg + self.config.lambda_few * loss_few,
            },
            logs={
                "loss_seg": loss_seg,
                "loss_few": loss_few,
                "loss_discriminator": loss_discriminator,
                "discriminator_accuracy_source": domain_accuracy(source_domain, SOURCE_DOMAIN),
                "discriminator_accuracy_target": domain_accuracy(few_domain, TARGET_DOMAIN),
            },
        )


def relative_weight(domain_logits: Tensor, label: Tensor) -> Tensor:
    """Return sigmoid(z) divided by its mean over the labelled pixels of the image.

    Args:
        domain_logits: z, positive where a pixel looks like the target, float [B, H, W].
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.

    Returns:
        Float32 [B, H, W], 0 at void pixels; the mean over the labelled pixels of an image is 1, if it has any.
    """
    # Divided by the largest one first, in logarithms: a discriminator that is sure of the source makes all of them tiny.
    with torch.autocast(domain_logits.device.type, enabled=False):
        log_weight = F.logsigmoid(domain_logits.float()).masked_fill(label == IGNORE_INDEX, -torch.inf)
        largest = log_weight.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).min)
        weight = (log_weight - largest).exp()
        count = (label != IGNORE_INDEX).sum(dim=(1, 2), keepdim=True)
        return weight * count / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1)
