"""Masked image consistency (MIC), on top of any method: what squares hide must be told from what is around them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor, nn

from segda.batch_norm import running_averages_kept
from segda.config_problems import LocatedError
from segda.losses import SegmentationLoss
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput
from segda.methods.dacs import DacsConfig, mixed_loss
from segda.methods.hosts import HOSTS
from segda.methods.masks import draw_masks
from segda.methods.strong import StrongConfig, strongly
from segda.methods.teacher import confident_share, label_with, make_teacher, move_teacher
from segda.named import ConfigOf
from segda.tunable import Range
from segda.types import PseudoLabel, UnlabeledBatch

USUAL_HOST = "dacs"


class MicConfig(StrongConfig):
    """Settings of `Mic`; defaults are those of the authors' code."""

    name: Literal["mic"] = "mic"
    host: Annotated[SerializeAsAny[MethodConfig], ConfigOf(HOSTS, usual=USUAL_HOST)] = Field(
        DacsConfig(name=USUAL_HOST), description="the method that masking is put on, with its own settings"
    )
    warm_up: Annotated[float, Range(0.0, 0.6)] = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training that precedes the first masked images (MIC: 0); a host with rounds or a warm-up has its "
        "own",
    )
    ratio: Annotated[float, Range(0.3, 0.9)] = Field(
        0.7, ge=0, le=1, description="share of the squares that are masked"
    )
    block: Annotated[float, Range(0.03, 0.25)] = Field(
        1 / 16,
        gt=0,
        le=1,
        description="side of the squares as a share of the crop's shorter side; the authors' 32 px of 512 and 64 px of 1024 are "
        "1/16",
    )
    lambda_masked: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the loss on masked images"
    )
    tau: Annotated[float, Range(0.5, 0.99)] = Field(
        0.968, ge=0, le=1, description="probability from which on a pseudo-label counts as confident; 0: all do"
    )
    alpha: Annotated[float, Range(0.9, 0.9999)] = Field(
        0.999,
        ge=0,
        lt=1,
        description="share of the teacher's weights that stays in each step; used where the host has no teacher of its own",
    )
    jitter: Annotated[float, Range(0.05, 0.5)] = Field(
        0.2, ge=0, le=0.5, description="color jitter of masked images; as that of mixed ones in DACS"
    )

    def check_classes(self, num_classes: int) -> None:
        """Check the host's settings; see `MethodConfig.check_classes`."""
        try:
            self.host.check_classes(num_classes)
        except LocatedError as error:
            raise LocatedError(("host", *error.location), error.text) from error

    @model_validator(mode="after")
    def _host_learns_from_the_source(self) -> Self:
        if HOSTS[self.host.name].supervision == "target":
            raise LocatedError(
                ("host", "name"), f"{self.host.name} is an upper bound and adapts nothing; choose another host"
            )
        return self


class Mic(Method):
    """Train as the host does, and to say of masked target images what a teacher says of whole ones.

    q = argmax teacher(x_target)                                          the teacher sees the target whole
    w = share of the batch's pixels with max softmax(teacher(x_target)) >= tau
    x = augmented(x_target), 0 in squares that are masked with the probability `ratio`
    L = L_host + lambda_masked * mean over pixels of w * CE(x, q)

    The teacher is the host's, if it has one (its attribute `teacher`), so that both learn from the same labels; otherwise an
    average of the segmenter's weights, kept for this (`segda.methods.teacher`). All that the host needs is passed on to it: its
    groups of parameters, rounds, few labelled images, external labels.

    Source: Hoyer, Dai, Wang and Van Gool, MIC: Masked Image Consistency for Context-Enhanced Domain Adaptation, CVPR 2023,
    arXiv:2212.01322, and its code. Deviations, with reasons:

    - masked images are normalized by their own statistics and leave the running averages of batch normalization alone: evaluation
      never sees a mask, and two thirds of a masked image are one color. In the authors' code the averages take masked images in;
    - squares are a share of the crop, as theirs are at two sizes. A network whose receptive field is small against a square cannot
      fill it in;
    - w has a threshold `tau` of its own, equal to DACS's by default; theirs is the host's w;
    - what recipes pad has no label and counts nowhere; the loss is that of DACS's target pixels (`segda.methods.dacs.mixed_loss`),
      auxiliary outputs included, and its teacher's evaluation mode and jitter are as described there. The authors leave out rows
      of the car's hood and above the horizon, which other cameras do not show.
    """

    Config: ClassVar[type[MethodConfig]] = MicConfig
    moves: Tensor

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Build the host around the same segmenter; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        self.host = HOSTS[config.host.name](segmenter, config=config.host, loss=loss, num_classes=num_classes)
        for name in ("needs_few_shot", "needs_external_labels", "draws_labeled_only", "reconstruction"):
            setattr(self, name, getattr(self.host, name))
        of_host = getattr(self.host, "teacher", None)
        self.has_own_teacher = not isinstance(of_host, nn.Module)
        if self.has_own_teacher:
            self.teacher = make_teacher(segmenter)
            self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    @classmethod
    def uses_few_shot(cls, settings: Mapping[str, Any]) -> bool:
        """Return what the host says; see `Method.uses_few_shot`."""
        host = settings.get("host", {})
        name = host.get("name", USUAL_HOST)
        return name in HOSTS and HOSTS[name].uses_few_shot(host)

    @classmethod
    def uses_external_labels(cls, settings: Mapping[str, Any]) -> bool:
        """Return what the host says; see `Method.uses_external_labels`."""
        host = settings.get("host", {})
        name = host.get("name", USUAL_HOST)
        return name in HOSTS and HOSTS[name].uses_external_labels(host)

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return what the host says; see `Method.fits_source`."""
        host = settings.get("host", {})
        name = host.get("name", USUAL_HOST)
        return name in HOSTS and HOSTS[name].fits_source(host)

    @classmethod
    def uses_discriminator(cls, settings: Mapping[str, Any]) -> bool:
        """Return what the host says; see `Method.uses_discriminator`."""
        host = settings.get("host", {})
        name = host.get("name", USUAL_HOST)
        return name in HOSTS and HOSTS[name].uses_discriminator(host)

    @classmethod
    def check_external_labels(cls, config: Any, *, has_confidences: bool) -> None:
        """Let the host refuse its settings; see `Method.check_external_labels`."""
        HOSTS[config.host.name].check_external_labels(config.host, has_confidences=has_confidences)

    def train(self, mode: bool = True) -> Self:
        """Switch the host with its segmenter to training or evaluation mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.has_own_teacher:
            self.teacher.eval()
        return self

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the host's losses, the segmenter's with the loss on masked images; see `Method.training_step`."""
        target = step.target
        unseen = UnlabeledBatch(target.image[:0])
        output = self.host.training_step(step if self.host.needs_target else step._replace(target=unseen))
        if step.progress < self.config.warm_up:
            return output
        pseudo_label = output.pseudo_label or self._ask(target)
        with running_averages_kept(self.segmenter):
            masked = self.segmenter(self._masked(step), auxiliary=self.loss.auxiliary_weight > 0)
        share = confident_share(pseudo_label, self.config.tau)
        loss_masked = mixed_loss(
            masked,
            pseudo_label.label,
            torch.zeros_like(pseudo_label.label, dtype=torch.bool),
            share,
            auxiliary_weight=self.loss.auxiliary_weight,
        )
        whole = output.losses["segmenter"] + self.config.lambda_masked * loss_masked
        return StepOutput(
            losses={**output.losses, "segmenter": whole},
            logs={**output.logs, "loss_masked": loss_masked, "confident_masked": share},
            pseudo_label=pseudo_label,
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the host's groups."""
        return self.host.parameter_groups()

    def after_step(self) -> None:
        """Let the host do what it does, and move the teacher if it is not the host's."""
        self.host.after_step()
        if self.has_own_teacher:
            move_teacher(self.teacher, self.segmenter, moves=self.moves, alpha=self.config.alpha)
            self.moves += 1

    def round_starts(self) -> tuple[float, ...]:
        """Return the host's rounds."""
        return self.host.round_starts()

    def begin_round(self, number: int) -> None:
        """Let the host begin its round."""
        self.host.begin_round(number)

    def pseudo_labels(self, images: Iterable[Tensor], *, number: int) -> Iterator[PseudoLabel] | None:
        """Return the host's pseudo-labels."""
        return self.host.pseudo_labels(images, number=number)

    def choose_source(self, images: Iterable[Tensor], *, number: int) -> Tensor | None:
        """Return the host's choice."""
        return self.host.choose_source(images, number=number)

    def _ask(self, target: UnlabeledBatch) -> PseudoLabel:
        teacher: Any = self.teacher if self.has_own_teacher else self.host.teacher
        return label_with(teacher, target)

    @torch.no_grad()
    def _masked(self, step: StepInput) -> Tensor:
        """Return the target images, augmented and masked, float [B, 3, H, W]."""

        def generator(number: int, purpose: str) -> torch.Generator:
            # The host may draw for the same images, and its draws are to be others.
            return step.draws.generator(number, f"masked {purpose}")

        image = strongly(step.target.image, self.config, generator=generator)
        height, width = image.shape[2:]
        masks = draw_masks(
            (height, width),
            side=max(1, round(self.config.block * min(height, width))),
            ratio=self.config.ratio,
            generators=[generator(number, "squares") for number in range(len(image))],
            device=image.device,
        )
        return image.masked_fill(masks.unsqueeze(1), 0)
