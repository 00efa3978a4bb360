"""Students of a teacher that has labelled the target once (`segda teach`): a larger network, an ensemble, or another program."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.config_problems import LocatedError
from segda.errors import ConfigError
from segda.losses import SegmentationLoss, mean
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.methods.mixing import draw_box, draw_pasted, paste
from segda.methods.strong import StrongConfig, strongly
from segda.methods.teacher import make_teacher, move_teacher
from segda.tunable import Choice, Range
from segda.types import IGNORE_INDEX, PseudoLabel, UnlabeledBatch


class ExternalLabelsConfig(StrongConfig, TwoDomainConfig):
    """Settings of `ExternalLabels`."""

    name: str = "external_labels"
    filter: Annotated[
        Literal["none", "threshold", "relative_margin"], Choice("none", "threshold", "relative_margin")
    ] = Field(
        "relative_margin",
        description="which labels are kept: all, those whose confidence is at least `threshold`, or at least the mean confidence "
        "of their class over all target training images (CoRTe)",
    )
    threshold: Annotated[float, Range(0.3, 0.99)] = Field(
        0.9,
        ge=0,
        le=1,
        description="confidence (margin of the two most probable classes) to keep; used by filter: threshold",
    )
    refine: Annotated[bool, Choice(True, False)] = Field(
        True, description="whether an averaged student fills what was not kept, and voids what it contradicts"
    )
    alpha: Annotated[float, Range(0.9, 0.999)] = Field(
        0.999,
        ge=0,
        lt=1,
        description="share of the averaged student that stays in each step, once warmed up; used by refine",
    )
    warm_up: Annotated[float, Range(0.2, 0.7)] = Field(
        0.5, ge=0, lt=1, description="share of the training before the averaged student refines labels; used by refine"
    )
    weighting: Annotated[Literal["uniform", "confidence"], Choice("uniform", "confidence")] = Field(
        "uniform",
        description="what labelled target pixels weigh in the loss: all alike, or as much as their confidence",
    )
    mix: Annotated[Literal["none", "classmix", "cutmix"], Choice("none", "classmix", "cutmix")] = Field(
        "classmix",
        description="what is pasted from a source image onto a target image: nothing, the pixels of half of its classes, or a box "
        "of half the area",
    )
    lambda_source: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the supervised loss on source images; 0: the student never sees one"
    )
    lambda_target: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the loss on target images with external labels"
    )

    @model_validator(mode="after")
    def _source_is_there_to_paste(self) -> Self:
        if self.lambda_source == 0 and self.mix != "none":
            raise LocatedError(
                ("mix",), f"{self.mix} pastes source images, which are not seen with lambda_source 0; choose none"
            )
        return self


class ExternalLabels(Method):
    """Train a student on the source, and on target images with labels that its teacher gave them before the training began.

    c      = confidence of the external label y_e, the margin between the teacher's two most probable classes
    t_k    = mean of c over the pixels of class k of all target training images
    kept   = c >= t_{y_e}                                  (filter: relative_margin; or c >= threshold; or all)
    q, c_q = argmax and margin of the averaged student     (refine), on the image without jitter and blur
    sure   = c_q >= t_q                                    (or c_q >= threshold)
    y      = y_e where kept, else q where sure, else void; void also where kept and sure differ
             (before the share `warm_up` of the training: y_e where kept, else void)
    L      = lambda_source * L_seg(source) + lambda_target * L_seg(augmented and mixed target, y)

    Without `refine` y is y_e where it is kept. With `mix` pixels of source images are pasted onto the target's, with their labels.
    Both means run over labelled pixels, of which each weighs 1, or as much as its confidence; pasted ones weigh 1.

    The teacher costs nothing here: its maps come with the images (`UnlabeledBatch.pseudo_label`), augmented like them. That is what
    makes a teacher of any size, and many students of one teacher, affordable.

    Source: the filter is CoRTe's relative confidence (Cuttano et al., ICCV workshops 2023, arXiv:2402.13122), ClassMix as in DACS
    (Tranheden et al., WACV 2021, arXiv:2007.08702). What the papers leave open is put together here, with reasons:

    - how labels are refined is a reconstruction (`segda.methods.corte` says of what). With filter: none the averaged student is
      judged by t_k too;
    - the averaged student has learned something before it is asked. Where the teacher doubts a class, t_k is next to nothing, and
      whatever a network without training says of it counts as sure: such labels spread, and a student of CamVid's dusk ended
      with all its pixels in three rare classes;
    - with ClassMix half of the loss is about pasted source pixels. DACS weighs the others by the share of confident ones; here they
      were chosen already, one by one, and void ones do not count;
    - the two terms are means of their own, so that lambda_target does not depend on how many labels are kept.
    """

    Config: ClassVar[type[MethodConfig]] = ExternalLabelsConfig
    needs_external_labels: ClassVar[bool] = True
    moves: Tensor

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Copy the segmenter if labels are refined; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        self.teacher = make_teacher(segmenter) if config.refine else None
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return whether it sees source images at all; see `Method.fits_source`."""
        return bool(settings.get("lambda_source", 1.0) > 0)

    @classmethod
    def check_external_labels(cls, config: Any, *, has_confidences: bool) -> None:
        """Refuse what is decided by confidences where there are none; see `Method.check_external_labels`."""
        if has_confidences:
            return
        plain = {"filter": "none", "refine": False, "weighting": "uniform"}
        deciding = {setting: value for setting, value in plain.items() if getattr(config, setting) != value}
        if deciding:
            wanted = ", ".join(f"{setting}: {str(value).lower()}" for setting, value in deciding.items())
            raise ConfigError(
                f"these external labels have no confidences, by which {' and '.join(deciding)} of {config.name} decide; set there "
                f"{wanted}, or label again with confidences"
            )

    def train(self, mode: bool = True) -> Self:
        """Switch the segmenter to training or evaluation mode; the averaged student stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the losses on source and target images; see `Method.training_step`."""
        config = self.config
        chosen = self._chosen(step)
        image, label, weight = self._mixed(step, chosen)
        auxiliary = self.loss.auxiliary_weight > 0 or self.loss.boundary_weight > 0
        if config.lambda_source > 0:
            source, target = forward_domains(
                self.segmenter, step.labeled.image, image, mixing=config.batch_norm, target_auxiliary=auxiliary
            )
            loss_seg = self.loss(source, step.labeled.label)
            loss_target = self.loss(target, label, weight)
            loss = config.lambda_source * loss_seg + config.lambda_target * loss_target
        else:
            # What supervises the student is the teacher then.
            loss_seg = loss_target = self.loss(self.segmenter(image, auxiliary=auxiliary), label, weight)
            loss = config.lambda_target * loss_target
        labeled = mean((chosen.label != IGNORE_INDEX).sum(), chosen.label.numel())
        return StepOutput(
            losses={"segmenter": loss}, logs={"loss_seg": loss_seg, "loss_target": loss_target, "labeled": labeled}
        )

    def after_step(self) -> None:
        """Move the averaged student."""
        if self.teacher is not None:
            move_teacher(self.teacher, self.segmenter, moves=self.moves, alpha=self.config.alpha)
            self.moves += 1

    @torch.no_grad()
    def _chosen(self, step: StepInput) -> PseudoLabel:
        """Return the labels to learn from, int64 [B, H, W], and their confidences, float [B, H, W] or None."""
        given, config = step.target.pseudo_label, self.config
        assert given is not None
        if given.weight is None:
            return given
        least = _least(given, config.filter, threshold=config.threshold)
        kept = reaches(given.label, given.weight, least)
        if self.teacher is None or step.progress < config.warm_up:
            return PseudoLabel(given.label.masked_fill(~kept, IGNORE_INDEX), given.weight)
        own = _said_by(self.teacher, step.target)
        assert own.weight is not None
        criterion = "relative_margin" if config.filter == "none" else config.filter
        sure = reaches(own.label, own.weight, _least(given, criterion, threshold=config.threshold))
        return PseudoLabel(
            refine(given.label, kept, own.label, sure),
            torch.where(kept, given.weight, own.weight.to(given.weight.dtype)),
        )

    @torch.no_grad()
    def _mixed(self, step: StepInput, chosen: PseudoLabel) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the student's images, augmented; their labels; and weights, or None."""
        source, image, label = step.labeled, step.target.image, chosen.label
        weight = chosen.weight if self.config.weighting == "confidence" else None
        if self.config.mix != "none":
            generators = [step.draws.generator(number, self.config.mix) for number in range(len(label))]
            if self.config.mix == "classmix":
                pasted = draw_pasted(source.label, num_classes=self.num_classes, generators=generators)
            else:
                height, width = label.shape[1:]
                pasted = draw_box((height, width), generators=generators, device=label.device)
            image = paste(pasted, source.image, image)
            label = paste(pasted, source.label, label)
            weight = None if weight is None else weight.masked_fill(pasted, 1.0)
        return strongly(image, self.config, generator=step.draws.generator), label, weight


def reaches(label: Tensor, confidence: Tensor, least: Tensor) -> Tensor:
    """Return which pixels are at least as confident as their class must be.

    Args:
        label: train ids, int64 [B, H, W]; `IGNORE_INDEX` never is.
        confidence: of each pixel, float [B, H, W].
        least: of each class, float [C]; infinity: none is.

    Returns:
        bool [B, H, W].
    """
    index = label.clamp(max=len(least) - 1)
    return (label != IGNORE_INDEX) & (confidence >= least[index])


def refine(label: Tensor, kept: Tensor, own: Tensor, sure: Tensor) -> Tensor:
    """Put two labellings together: the first where it is kept, else the second where that is sure.

    Args:
        label: external labels, int64 [B, H, W].
        kept: which of them count, bool [B, H, W].
        own: labels of the averaged student, int64 [B, H, W].
        sure: which of these count, bool [B, H, W].

    Returns:
        int64 [B, H, W]; `IGNORE_INDEX` where neither counts, and where both do and differ.
    """
    filled = torch.where(kept, label, own.masked_fill(~sure, IGNORE_INDEX))
    return filled.masked_fill(kept & sure & (label != own), IGNORE_INDEX)


def _least(given: PseudoLabel, criterion: str, *, threshold: float) -> Tensor:
    """Return the confidence that labels of each class must reach, float [C]."""
    assert given.class_confidence is not None
    if criterion == "relative_margin":
        return given.class_confidence
    return torch.full_like(given.class_confidence, threshold if criterion == "threshold" else 0.0)


def _said_by(teacher: nn.Module, target: UnlabeledBatch) -> PseudoLabel:
    """Return the classes that a network predicts, `IGNORE_INDEX` where an image was padded, and their margins."""
    probs = teacher(target.image, auxiliary=False).logits.float().softmax(1)
    (largest, second), (label, _) = (part.unbind(1) for part in probs.topk(2, dim=1))
    return PseudoLabel(
        label if target.valid is None else label.masked_fill(~target.valid, IGNORE_INDEX), largest - second
    )
