"""Domain adaptation by mixing (DACS): an averaged teacher labels target images, onto which parts of source images are pasted."""

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.losses import Loss, SegmentationLoss, mean
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.methods.mixing import draw_pasted, paste
from segda.methods.teacher import make_teacher, move_teacher
from segda.transforms.photometric import SMALLEST_SIGMA, augment_strongly
from segda.tunable import Range
from segda.types import SegmentationOutput


class DacsConfig(TwoDomainConfig):
    """Settings of `Dacs`; defaults are those of the authors' code."""

    name: Literal["dacs"] = "dacs"
    alpha: Annotated[float, Range(0.9, 0.999)] = Field(
        0.99, ge=0, lt=1, description="share of the teacher's weights that stays in each step, once warmed up"
    )
    tau: Annotated[float, Range(0.5, 0.99)] = Field(
        0.968, ge=0, le=1, description="probability from which on a pseudo-label counts as confident; 0: all do"
    )
    lambda_mix: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the loss on mixed images"
    )
    jitter: Annotated[float, Range(0.05, 0.5)] = Field(
        0.25,
        ge=0,
        le=0.5,
        description="color jitter of mixed images: factors on brightness, contrast and saturation from 1 -+ this, hue within this "
        "many turns",
    )
    jitter_probability: Annotated[float, Range(0.0, 1.0)] = Field(
        0.8, ge=0, le=1, description="share of the mixed images whose colors are jittered"
    )
    blur_sigma: Annotated[float, Range(0.5, 3.0)] = Field(
        1.15,
        gt=SMALLEST_SIGMA,
        le=8,
        description=f"largest standard deviation in pixels of the mixed images' Gaussian blur; the smallest is {SMALLEST_SIGMA}",
    )
    blur_probability: Annotated[float, Range(0.0, 1.0)] = Field(
        0.5, ge=0, le=1, description="share of the mixed images that are blurred"
    )


class Dacs(Method):
    """Train on source images, and on target images onto which pixels of source images are pasted.

    q    = argmax teacher(x_target)                                   the teacher sees the target without jitter and blur
    w    = share of the batch's pixels with max softmax(teacher(x_target)) >= tau
    mask = pixels of half of the classes of a source label            (ClassMix)
    x, y = augmented(source where mask, else target), label where mask, else q
    L    = L_seg(source) + lambda_mix * mean over all pixels of (1 where mask, else w) * CE(x, y)

    After each update the teacher's weights and BatchNorm statistics move towards the segmenter's (`segda.methods.teacher`); it
    stays in evaluation mode. The segmenter is what is scored and kept, as in the authors' code.

    The default tau suits long trainings from ImageNet weights. A short one from random weights is never that sure: w is 0 then,
    and all that is learned from mixed images is source objects before the target's scenery. `confident` among the logs is w.

    Source: Tranheden, Olsson, Pinto and Svensson, DACS: Domain Adaptation via Cross-domain Mixed Sampling, WACV 2021,
    arXiv:2007.08702. Deviations, with reasons:

    - void is no class to paste (`segda.methods.mixing`); so every pixel of a mixed image has a label;
    - their teacher runs in training mode, normalizing by the batch, and its statistics are never read. In evaluation mode, with
      statistics that are averaged too, a pseudo-label depends on its image alone, also in micro-batches and over processes;
    - whether an image is jittered or blurred is drawn for each by itself, and for the whole batch in their code, so that its draws
      do not depend on what it is batched with. Brightness, contrast, saturation and hue come in this order, theirs in a random
      one, and as in torchvision (the authors' library added to values for brightness and multiplied them for contrast). The blur's
      kernel reaches 3.5 sigma, theirs covers a tenth of the image;
    - the auxiliary outputs of mixed images are trained like those of source images, with the auxiliary weight of the supervised
      loss: their network has one output, and so the balance of the two terms is theirs at every output;
    - L_seg is the configured supervised loss, cross-entropy by default. The mixed images' is cross-entropy whatever that is: w
      weighs pixels, of which Dice has no sum;
    - the recipe `data.augmentation` changes what the teacher sees too, where it changes colors. Geometry must change for both.
    """

    Config: ClassVar[type[MethodConfig]] = DacsConfig
    moves: Tensor

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Copy the segmenter; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        self.teacher = make_teacher(segmenter)
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> Self:
        """Switch the segmenter to training or evaluation mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the losses on source and mixed images; see `Method.training_step`."""
        pseudo_label, confidence = self._pseudo_label(step.target.image)
        pasted, mixed_image, mixed_label = self._mix(step, pseudo_label)
        source_output, mixed_output = forward_domains(
            self.segmenter,
            step.labeled.image,
            mixed_image,
            mixing=self.config.batch_norm,
            target_auxiliary=self.loss.auxiliary_weight > 0,
        )
        confident = (confidence >= self.config.tau).sum()
        loss_seg = self.loss(source_output, step.labeled.label)
        loss_mix = mixed_loss(mixed_output, mixed_label, pasted, confident, auxiliary_weight=self.loss.auxiliary_weight)
        return StepOutput(
            losses={"segmenter": loss_seg + self.config.lambda_mix * loss_mix},
            logs={"loss_seg": loss_seg, "loss_mix": loss_mix, "confident": mean(confident, confidence.numel())},
        )

    def after_step(self) -> None:
        """Move the teacher."""
        move_teacher(self.teacher, self.segmenter, moves=self.moves, alpha=self.config.alpha)
        self.moves += 1

    @torch.no_grad()
    def _pseudo_label(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's classes, int64 [B, H, W], and their probabilities, float [B, H, W]."""
        confidence, pseudo_label = self.teacher(image, auxiliary=False).logits.float().softmax(1).max(1)
        return pseudo_label, confidence

    @torch.no_grad()
    def _mix(self, step: StepInput, pseudo_label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is pasted, bool [B, H, W]; the mixed images, augmented; and their labels."""
        source, target, config = step.labeled, step.target, self.config
        generators = [step.draws.generator(number, "classmix") for number in range(len(source.label))]
        pasted = draw_pasted(source.label, num_classes=self.num_classes, generators=generators)
        image = augment_strongly(
            paste(pasted, source.image, target.image),
            jitter=config.jitter,
            jitter_probability=config.jitter_probability,
            largest_sigma=config.blur_sigma,
            blur_probability=config.blur_probability,
            generator=step.draws.generator,
        )
        return pasted, image, paste(pasted, source.label, pseudo_label)


def mixed_loss(
    output: SegmentationOutput, label: Tensor, pasted: Tensor, confident: Tensor, *, auxiliary_weight: float
) -> Loss:
    """Return the mean over all pixels of the cross-entropy, pixels with a pseudo-label weighing w.

    w = confident / pixels is a share of the whole batch, so it appears in the formula and in none of the sums:
    L = (sum over pasted pixels + w * sum over the others) / pixels.

    Args:
        output: on mixed images, logits float [B, C, H, W] each.
        label: train ids of all pixels, int64 [B, H, W].
        pasted: which are of the source, bool [B, H, W].
        confident: number of the target images' pixels whose pseudo-label is confident, pasted over or not; integer scalar.
        auxiliary_weight: of each auxiliary output, >= 0.

    Returns:
        A loss >= 0, in nats; without confident pixels that of the source's pixels alone.
    """
    entropy = _cross_entropy(output.logits, label)
    for logits in output.auxiliary:
        entropy = entropy + auxiliary_weight * _cross_entropy(logits, label)
    of_source, of_target = (entropy * pasted).sum(), (entropy * ~pasted).sum()
    counts = torch.stack([confident, torch.full_like(confident, label.numel())])
    return Loss(torch.cat([torch.stack([of_source, of_target]).double(), counts.double()]), _weighted)


def _weighted(sums: Tensor) -> Tensor:
    of_source, of_target, confident, pixels = sums
    loss: Tensor = (of_source + confident / pixels * of_target) / pixels
    return loss


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits.float(), label, reduction="none")
