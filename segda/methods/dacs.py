"""Domain adaptation by mixing (DACS): an averaged teacher labels target images, onto which parts of source images are pasted."""

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.losses import Loss, SegmentationLoss
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.methods.mixing import draw_box, draw_pasted, paste
from segda.methods.strong import StrongConfig, strongly
from segda.methods.teacher import confident_share, label_with, make_teacher, move_teacher
from segda.tunable import Choice, Range
from segda.types import IGNORE_INDEX, SegmentationOutput


class DacsConfig(StrongConfig, TwoDomainConfig):
    """Settings of `Dacs`; defaults are those of the authors' code."""

    name: Literal["dacs"] = "dacs"
    mix: Annotated[Literal["classmix", "cutmix"], Choice("classmix", "cutmix")] = Field(
        "classmix",
        description="what is pasted: the pixels of half of the source label's classes, or a box of half the area",
    )
    warm_up: Annotated[float, Range(0.0, 0.6)] = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training that precedes the first mixed images, on the source alone (DACS: 0)",
    )
    alpha: Annotated[float, Range(0.9, 0.999)] = Field(
        0.99, ge=0, lt=1, description="share of the teacher's weights that stays in each step, once warmed up"
    )
    tau: Annotated[float, Range(0.5, 0.99)] = Field(
        0.968, ge=0, le=1, description="probability from which on a pseudo-label counts as confident; 0: all do"
    )
    lambda_mix: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the loss on mixed images"
    )


class Dacs(Method):
    """Train on source images, and on target images onto which pixels of source images are pasted.

    q    = argmax teacher(x_target)                                   the teacher sees the target without jitter and blur
    w    = share of the batch's pixels with max softmax(teacher(x_target)) >= tau
    mask = pixels of half of the classes of a source label            (ClassMix; or a box of half the area, CutMix)
    x, y = augmented(source where mask, else target), label where mask, else q
    L    = L_seg(source) + lambda_mix * mean over labelled pixels of (1 where mask, else w) * CE(x, y)

    After each update the teacher's weights and BatchNorm statistics move towards the segmenter's (`segda.methods.teacher`); it
    stays in evaluation mode. The segmenter is what is scored and kept, as in the authors' code.

    The default tau suits long trainings. A short one is seldom that sure, and one from random weights may never be: then w is 0 and
    all that is learned from mixed images is source objects before the target's scenery. `confident` among the logs is w. Over 300
    steps from ImageNet weights (CamVid day -> dusk at 60 x 80, BiSeNet on EfficientNet-Lite0) it was 0.14 on average and 0.29 with
    tau 0.8, which was not better in the one run of each (target mIoU 0.164 and 0.142).

    A teacher that mistakes one class for another teaches it: what it does not know yet it will never learn. In a short training
    that is how roads at dusk became pavement (CamVid). `warm_up` lets it learn from the source first.

    Source: Tranheden, Olsson, Pinto and Svensson, DACS: Domain Adaptation via Cross-domain Mixed Sampling, WACV 2021,
    arXiv:2007.08702. Deviations, with reasons:

    - void is no class to paste (`segda.methods.mixing`), though a box may hold some. That, and what the recipe `data.augmentation`
      pads of target images, has no label and counts nowhere, w included; their crops are never padded;
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
        if step.progress < self.config.warm_up:
            loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
            return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
        pseudo_label = label_with(self.teacher, step.target)
        pasted, mixed_image, mixed_label = self._mix(step, pseudo_label.label)
        source_output, mixed_output = forward_domains(
            self.segmenter,
            step.labeled.image,
            mixed_image,
            mixing=self.config.batch_norm,
            target_auxiliary=self.loss.auxiliary_weight > 0,
        )
        loss_seg = self.loss(source_output, step.labeled.label)
        share = confident_share(pseudo_label, self.config.tau)
        loss_mix = mixed_loss(mixed_output, mixed_label, pasted, share, auxiliary_weight=self.loss.auxiliary_weight)
        return StepOutput(
            losses={"segmenter": loss_seg + self.config.lambda_mix * loss_mix},
            logs={"loss_seg": loss_seg, "loss_mix": loss_mix, "confident": share},
            pseudo_label=pseudo_label,
        )

    def after_step(self) -> None:
        """Move the teacher."""
        move_teacher(self.teacher, self.segmenter, moves=self.moves, alpha=self.config.alpha)
        self.moves += 1

    @torch.no_grad()
    def _mix(self, step: StepInput, pseudo_label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is pasted, bool [B, H, W]; the mixed images, augmented; and their labels."""
        source, target = step.labeled, step.target
        generators = [step.draws.generator(number, self.config.mix) for number in range(len(source.label))]
        if self.config.mix == "classmix":
            pasted = draw_pasted(source.label, num_classes=self.num_classes, generators=generators)
        else:
            height, width = source.label.shape[1:]
            pasted = draw_box((height, width), generators=generators, device=source.label.device)
        image = strongly(paste(pasted, source.image, target.image), self.config, generator=step.draws.generator)
        return pasted, image, paste(pasted, source.label, pseudo_label)


def mixed_loss(
    output: SegmentationOutput, label: Tensor, pasted: Tensor, share: Loss, *, auxiliary_weight: float
) -> Loss:
    """Return the mean over labelled pixels of the cross-entropy, pixels with a pseudo-label weighing w.

    w is a share of the whole batch, so it appears in the formula and in none of the sums:
    L = (sum over pasted pixels + w * sum over the others) / labelled pixels.

    Args:
        output: on mixed images, logits float [B, C, H, W] each.
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` where there is none.
        pasted: which are of the source, bool [B, H, W].
        share: w, of the target images' pixels that the images show those whose pseudo-label is confident, pasted over or not.
        auxiliary_weight: of each auxiliary output, >= 0.

    Returns:
        A loss >= 0, in nats; without confident pixels that of the source's pixels alone, and zero without any label.
    """
    entropy = _cross_entropy(output.logits, label)
    for logits in output.auxiliary:
        entropy = entropy + auxiliary_weight * _cross_entropy(logits, label)
    of_source, of_target = (entropy * pasted).sum(), (entropy * ~pasted).sum()
    labeled = (label != IGNORE_INDEX).sum()

    def weighted(sums: Tensor) -> Tensor:
        of_source, of_target, labeled = sums[:3]
        loss: Tensor = (of_source + share.formula(sums[3:]) * of_target) / torch.where(labeled > 0, labeled, 1.0)
        return loss

    own = torch.stack([of_source.double(), of_target.double(), labeled.double()])
    return Loss(torch.cat([own, share.sums]), weighted)


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
