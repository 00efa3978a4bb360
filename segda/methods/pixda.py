"""Pixel by pixel adaptation to a few labelled target images (PixDA)."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.config_problems import LocatedError
from segda.datasets.loaders import denormalize, normalize
from segda.discriminators import FCD, Pixel
from segda.discriminators.inputs import probabilities
from segda.losses import Loss, SegmentationLoss, mean
from segda.losses.adversarial import SOURCE_DOMAIN, TARGET_DOMAIN, discriminator_loss, domain_accuracy
from segda.losses.focal import focal
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig, equal_rounds
from segda.methods.teacher import copy_weights, make_teacher
from segda.transforms.fourier import swap_amplitude
from segda.tunable import Choice, Range
from segda.types import IGNORE_INDEX, SegmentationOutput


class PixdaConfig(TwoDomainConfig):
    """Settings of `Pixda`; defaults are those of the authors' code where nothing else is said."""

    name: Literal["pixda"] = "pixda"
    warm_up: Annotated[float, Range(0.2, 0.7)] = Field(
        0.4,
        ge=0,
        lt=1,
        description="share of the training that precedes the adaptation, on the source alone (PixDA begins from a trained network)",
    )
    rounds: Annotated[int, Choice(2, 3, 5)] = Field(
        5, ge=1, le=100, description="how often source images are chosen, at equal distances (PixDA: about 5 epochs)"
    )
    threshold: Annotated[float, Range(0.2, 1.0)] = Field(
        0.4,
        ge=0,
        description="loss of the image discriminator, in nats, that source images must exceed in the first round",
    )
    threshold_step: Annotated[float, Range(0.0, 0.6)] = Field(
        0.4, ge=0, description="what each round adds to the threshold, in nats"
    )
    smallest_share: Annotated[float, Range(0.05, 1.0)] = Field(
        0.1, gt=0, le=1, description="share of the source images that is chosen at least; 1: all, no choice (PixDA: 0)"
    )
    beta: Annotated[float, Range(0.001, 0.1, log=True)] = Field(
        0.01, ge=0, lt=0.5, description="frequencies that source images take over, as a share of the shorter side (FDA)"
    )
    gamma: Annotated[float, Range(0.0, 4.0)] = Field(2.0, ge=0, description="exponent of the focal losses")
    alpha: Annotated[float, Range(0.25, 1.0)] = Field(
        0.75, gt=0, description="factor of the focal losses of all classes but `frequent_class`"
    )
    frequent_class: int | None = Field(
        None, ge=0, le=254, description="train id of a class that prevails (PixDA: 2, building); unset: none"
    )
    frequent_alpha: Annotated[float, Range(0.1, 1.0)] = Field(
        0.25, gt=0, description="factor of the focal losses of `frequent_class`"
    )
    lambda_few: Annotated[float, Range(0.3, 3.0, log=True)] = Field(
        1.0, ge=0, description="weight of the focal loss on the few labelled target images"
    )
    lambda_adv: Annotated[float, Range(0.01, 1.0, log=True)] = Field(
        0.1, ge=0, description="weight of the pixel-wise adversarial loss"
    )
    detached: Annotated[bool, Choice(True, False)] = Field(
        True,
        description="whether the weights of pixels in the adversarial loss are constants (as in the paper), or the segmenter is "
        "also trained to change them (as in the code)",
    )
    distillation: Annotated[float, Range(0.0, 0.2)] = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of the training at its end that refines the network on the few images, beside a frozen copy of itself "
        "(PixDA: 200 of 30,000 steps); 0: none",
    )
    lambda_kd: Annotated[float, Range(0.05, 5.0, log=True)] = Field(
        0.5, ge=0, description="weight of the distillation from the frozen copy"
    )
    copy_scale: Annotated[float, Range(0.25, 1.0)] = Field(
        0.5,
        gt=0,
        description="factor on the frozen copy's logits before their softmax (PixDA: 0.5, a temperature of 2), the network's stay",
    )

    @model_validator(mode="after")
    def _time_is_left(self) -> Self:
        if self.warm_up + self.distillation >= 1:
            raise ValueError(
                f"the adaptation lies between warm_up ({self.warm_up:g} of the training) and distillation ({self.distillation:g}), "
                "which leave no time for it; make one shorter"
            )
        return self

    def check_classes(self, num_classes: int) -> None:
        """Refuse a `frequent_class` that there is not; see `MethodConfig.check_classes`."""
        if self.frequent_class is not None and self.frequent_class >= num_classes:
            raise LocatedError(
                ("frequent_class",),
                f"must be a train id from 0 to {num_classes - 1}, got {self.frequent_class}; choose another class",
            )


class Pixda(Method):
    """Align predictions on a few labelled target images with those on the source, pixel by pixel, where it matters.

    Before the first round: L_seg(source), the configured supervised loss. In each round but the last one:

    L_segmenter     = FL(P(x_s), y_s) + lambda_few * FL(P(x_t), y_t) + lambda_adv * mean over all pixels of
                      S * B * L_D(D_p(softmax P(x_t)), SOURCE)
    L_discriminator = sum over D_p and D_g of 1/2 L_D(D(softmax P(x_s)), SOURCE) + 1/2 L_D(D(softmax P(x_t)), TARGET)

    x_s is a source image with the low frequencies' amplitude of a target image (`segda.transforms.fourier`), x_t one of the few
    labelled target images, FL the focal loss with a factor for each class. S is the cross-entropy of P(x_t): what is right already
    is left alone. B is 1 - (share of the pixel's class among the labelled pixels of its image): rare classes count more. Both are
    0 at void pixels. L_D is binary cross-entropy, D_p judges every pixel, D_g the image (FCD).

    At the beginning of round r the source images are chosen on which D_g is most mistaken, which look like the target to it: those
    whose mean L_D(D_g, SOURCE) exceeds threshold + (r - 1) * threshold_step.

    In the last round, if there is a share `distillation`, a frozen copy C of the network keeps it from forgetting:

    L_segmenter     = FL(P(x_t), y_t) + lambda_kd * mean over pixels and classes of
                      -softmax(copy_scale * C(x_t)) * log softmax P(x_t)

    Source: Tavera, Cermelli, Masone and Caputo, Pixel-by-Pixel Cross-Domain Alignment for Few-Shot Semantic Segmentation, WACV
    2022, arXiv:2110.11650, and its code. Deviations, with reasons:

    - one training of a given length has all of it, so that it can be compared with other methods: the share `warm_up` stands for
      the source-only network that the authors load, rounds of equal length for epochs, and the learning rate follows one schedule;
    - the threshold alone may choose no image, at which the authors' code stops with an error; at least `smallest_share` of the
      images are chosen here, those of the highest loss. D_g sees them as they are, without the target's amplitude, which differs
      from draw to draw;
    - S and B are constants by default, as the paper says; the code lets gradients through S (`detached: false`). B is looked up by
      class, and void counts neither as a class nor among the pixels. The code writes shares into the label, where a share of 1 is
      class 1, and counts void;
    - a source image takes the amplitude of the target image at its place in the batch, which is drawn at random from the few;
    - the discriminators judge a target batch once for both losses, as in `segda.methods.adversarial`. In the first and in the last
      stage they rest;
    - auxiliary outputs have the same focal losses, with the auxiliary weight of the supervised loss; weights of classes
      (`loss.class_weights`) apply to all supervised losses. The authors' network has one output and no such weights;
    - the factor of the class that prevails is off by default: which one that is depends on the data.
    """

    Config: ClassVar[type[MethodConfig]] = PixdaConfig
    has_discriminator: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False
    needs_few_shot: ClassVar[bool] = True
    class_factor: Tensor

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Build the discriminators, and the copy of the last stage; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        factor = torch.full((num_classes,), config.alpha)
        if config.frequent_class is not None:
            factor[config.frequent_class] = config.frequent_alpha
        self.register_buffer("class_factor", factor, persistent=False)
        self.discriminator = Pixel(num_classes)
        self.image_discriminator = FCD(num_classes)
        self.frozen = make_teacher(
            segmenter
        )  # no `teacher` for others to ask: it knows nothing before it is first copied

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return that it does not: it learns from source images in the style of the target; see `Method.fits_source`."""
        return False

    def train(self, mode: bool = True) -> Self:
        """Switch the segmenter to training or evaluation mode; the frozen copy stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the segmenter's and the discriminators' parameters."""
        return {
            "segmenter": list(self.segmenter.parameters()),
            "discriminator": [*self.discriminator.parameters(), *self.image_discriminator.parameters()],
        }

    def round_starts(self) -> tuple[float, ...]:
        """Return equal distances after the warm-up, and where the distillation begins; see `Method.round_starts`."""
        config = self.config
        starts = equal_rounds(config.warm_up, 1 - config.warm_up - config.distillation, rounds=config.rounds)
        return (*starts, 1 - config.distillation) if config.distillation else starts

    def begin_round(self, number: int) -> None:
        """Copy the segmenter for the distillation; see `Method.begin_round`."""
        if number > self.config.rounds:
            copy_weights(self.frozen, self.segmenter)

    def choose_source(self, images: Iterable[Tensor], *, number: int) -> Tensor | None:
        """Choose the images that the image discriminator takes for the target; see `Method.choose_source`."""
        config = self.config
        if number > config.rounds:
            return None
        losses = torch.cat([self._loss_per_image(image) for image in images]).cpu()
        threshold = config.threshold + (number - 1) * config.threshold_step
        return choose_above(losses, threshold=threshold, smallest_share=config.smallest_share)

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the losses of the stage that the step is in; see `Method.training_step`."""
        if step.round == 0:
            loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
            return self._alone(loss_seg, {"loss_seg": loss_seg})
        return self._adapt(step) if step.round <= self.config.rounds else self._distill(step)

    def _adapt(self, step: StepInput) -> StepOutput:
        assert step.few_shot is not None
        config, few = self.config, step.few_shot
        with torch.no_grad():
            styled = swap_amplitude(denormalize(step.labeled.image), denormalize(few.image), beta=config.beta)
        source_output, few_output = forward_domains(
            self.segmenter, normalize(styled), few.image, mixing=config.batch_norm
        )
        loss_seg = self._focal(source_output, step.labeled.label)
        loss_few = self._focal(few_output, few.label)

        of_source = probabilities(source_output.logits.detach())
        of_few = probabilities(few_output.logits)
        source_domain, few_domain = self.discriminator(of_source), self.discriminator(of_few)
        weights = pixel_weights(few_output.logits, few.label, detached=config.detached)
        loss_adv = pixel_adversarial(few_domain, weights)
        loss_discriminator = discriminator_loss(source_domain, few_domain)
        loss_images = discriminator_loss(self.image_discriminator(of_source), self.image_discriminator(of_few.detach()))
        return StepOutput(
            losses={
                "discriminator": loss_discriminator + loss_images,
                "segmenter": loss_seg + config.lambda_few * loss_few + config.lambda_adv * loss_adv,
            },
            logs={
                "loss_seg": loss_seg,
                "loss_few": loss_few,
                "loss_adv": loss_adv,
                "loss_discriminator": loss_discriminator,
                "loss_image_discriminator": loss_images,
                "discriminator_accuracy_source": domain_accuracy(source_domain, SOURCE_DOMAIN),
                "discriminator_accuracy_target": domain_accuracy(few_domain, TARGET_DOMAIN),
            },
        )

    def _distill(self, step: StepInput) -> StepOutput:
        assert step.few_shot is not None
        output = self.segmenter(step.few_shot.image)
        with torch.no_grad():
            copied = self.frozen(step.few_shot.image, auxiliary=False).logits
        loss_few = self._focal(output, step.few_shot.label)
        loss_kd = distillation(output.logits, copied, scale=self.config.copy_scale)
        logs = {"loss_seg": loss_few, "loss_few": loss_few, "loss_kd": loss_kd}
        return self._alone(loss_few + self.config.lambda_kd * loss_kd, logs)

    def _alone(self, loss: Loss, logs: dict[str, Loss]) -> StepOutput:
        """Return a step in which the discriminators rest."""
        # Several processes wait for the gradient of every parameter, so theirs is zero.
        resting = torch.stack([parameter.sum() for parameter in self.parameter_groups()["discriminator"]]).sum()
        return StepOutput({"discriminator": mean(0 * resting, 1), "segmenter": loss}, logs)

    def _focal(self, output: SegmentationOutput, label: Tensor) -> Loss:
        def rule(logits: Tensor, label: Tensor) -> Loss:
            return focal(
                logits,
                label,
                gamma=self.config.gamma,
                alpha=self.class_factor,
                class_weight=self.loss.class_weight,
            )

        return self.loss.over_outputs(output, label, rule=rule)

    def _loss_per_image(self, image: Tensor) -> Tensor:
        """Return how mistaken the image discriminator is about source images, float32 [B], in nats."""
        scores = self.image_discriminator(probabilities(self.segmenter(image, auxiliary=False).logits))
        return F.softplus(scores.float()).mean(dim=(1, 2, 3))


def choose_above(losses: Tensor, *, threshold: float, smallest_share: float) -> Tensor:
    """Choose images whose loss exceeds a threshold, and at least a share of them all: then those of the highest losses.

    Args:
        losses: of each image, float [N].
        threshold: in the same unit.
        smallest_share: of N, in (0, 1]; rounded up.

    Returns:
        bool [N], true at least once.
    """
    chosen = losses > threshold
    fewest = math.ceil(smallest_share * len(losses))
    if chosen.sum() >= fewest:
        return chosen
    return torch.zeros_like(chosen).index_fill(0, losses.argsort(descending=True, stable=True)[:fewest], True)


def pixel_weights(logits: Tensor, label: Tensor, *, detached: bool) -> Tensor:
    """Return S * B: how much of the adversarial loss each pixel has.

    S is the pixel's cross-entropy. B is 1 - n_c / n, n_c being the pixels of its class in its image, n all that are not void.

    Args:
        logits: class scores on target images, float [B, C, H, W].
        label: their train ids, int64 [B, H, W]; `IGNORE_INDEX` is void.
        detached: whether to return constants; otherwise gradients flow through S.

    Returns:
        float32 [B, H, W], >= 0; 0 where the label is void, or shows one class alone in its image.
    """
    num_classes = logits.shape[1]
    with torch.autocast(logits.device.type, enabled=False):
        entropy = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
        valid = label != IGNORE_INDEX
        index = label.masked_fill(~valid, 0).flatten(1)
        count = entropy.new_zeros(len(label), num_classes).scatter_add(1, index, valid.flatten(1).float())
        balance = 1 - count / count.sum(1, keepdim=True).clamp(min=1)
        weights: Tensor = (entropy.detach() if detached else entropy) * balance.gather(1, index).view_as(entropy)
        return weights


def pixel_adversarial(domain_logits: Tensor, weights: Tensor) -> Loss:
    """Return the mean over all pixels of weight times what the discriminator needs to take the pixel for the source's.

    Args:
        domain_logits: of the pixel-wise discriminator on target images, float [B, 1, H, W].
        weights: of `pixel_weights`, float [B, H, W].

    Returns:
        A mean >= 0, in nats^2; void pixels are counted, as published: much void makes it small.
    """
    with torch.autocast(domain_logits.device.type, enabled=False):
        costs = F.softplus(domain_logits[:, 0].float())  # binary cross-entropy against `SOURCE_DOMAIN`, which is 0
        return mean((weights * costs).sum(), costs.numel())


def distillation(logits: Tensor, copied: Tensor, *, scale: float) -> Loss:
    """Return the mean over pixels and classes of -softmax(scale * copied) * log softmax(logits).

    Args:
        logits: of the network under training, float [B, C, H, W].
        copied: of the frozen copy, the same shape.
        scale: of the copy's logits alone.

    Returns:
        A mean > 0, in nats. By C times smaller than the cross-entropy, as published.
    """
    with torch.autocast(logits.device.type, enabled=False):
        wanted = (scale * copied.float()).softmax(dim=1)
        costs = -wanted * logits.float().log_softmax(dim=1)
        return mean(costs.sum(), costs.numel())
