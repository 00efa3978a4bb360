"""Adversarial adaptation of the output space (AdaptSegNet, AdvEnt), with exchangeable discriminators."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from segda.batch_norm import forward_domains
from segda.discriminators import DISCRIMINATORS, build_discriminator
from segda.discriminators.inputs import probabilities, self_information
from segda.losses import SegmentationLoss, total
from segda.losses.adversarial import SOURCE_DOMAIN, TARGET_DOMAIN, adversarial_loss, discriminator_loss, domain_accuracy
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.named import OneOf
from segda.tunable import Choice, Range


class AdversarialConfig(TwoDomainConfig):
    """Settings of `Adversarial`."""

    name: str = "adversarial"
    discriminator: Annotated[str, OneOf(DISCRIMINATORS), Choice(*DISCRIMINATORS)] = Field(
        "fcd", description="domain classifier, a name in the table of `segda.discriminators`"
    )
    input: Annotated[Literal["softmax", "self_information"], Choice("softmax", "self_information")] = Field(
        "softmax",
        description="what discriminators see of a prediction: class probabilities (AdaptSegNet), or what each class adds to the "
        "entropy (AdvEnt)",
    )
    scaled_information: Annotated[bool, Choice(False, True)] = Field(
        False,
        description="scale self-information to [0, 1]; as published it is 5 to 8 times smaller; used by input: self_information",
    )
    rank: Annotated[float, Range(0.1, 0.9)] = Field(
        0.5, gt=0, le=1, description="share of the dense parameters that tfd and cp keep"
    )
    dropout: Annotated[float, Range(0.01, 0.3, log=True)] = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that an element of what comes out of a discriminator's activation is zero in training (adaptation "
        "report: 0.01; its code: 0.1)",
    )
    kind: Annotated[Literal["vanilla", "least_squares"], Choice("vanilla", "least_squares")] = Field(
        "vanilla", description="cross-entropy or squared error on the domain"
    )
    lambda_adv: Annotated[float, Range(1e-4, 1e-1, log=True)] = Field(
        1e-3, ge=0, description="weight of the adversarial loss on the main output"
    )
    levels: Annotated[Literal["single", "multi"], Choice("single", "multi")] = Field(
        "single", description="adapt the main output, or the auxiliary outputs too"
    )
    lambda_adv_auxiliary: Annotated[float, Range(1e-5, 1e-2, log=True)] = Field(
        2e-4, ge=0, description="weight of the adversarial loss on each auxiliary output; used by levels: multi"
    )


class Adversarial(Method):
    """Make the segmenter's predictions on target images indistinguishable from those on source images.

    L_segmenter     = L_seg(source) + sum_i lambda_i * L_D(D_i(f(P_i(target))), SOURCE)
    L_discriminator = sum_i 1/2 L_D(D_i(f(P_i(source))), SOURCE) + 1/2 L_D(D_i(f(P_i(target))), TARGET)

    The sum runs over the main output, and over each auxiliary output with a discriminator of its own if `levels` is multi.
    L_D is binary cross-entropy on logits or, as in least-squares GANs, squared error. f is the softmax or, as in AdvEnt, the
    self-information of each class (`segda.discriminators.inputs`), by which predictions on the target become as sure as those on
    the source. `discriminator_accuracy_source` and `..._target` among the logs are the shares of the discriminators' outputs that
    are right; `segda/discriminator_health.py` says what they tell.

    Source: Tsai et al., Learning to Adapt Structured Output Space for Semantic Segmentation, CVPR 2018, arXiv:1802.10349,
    eq. 1-6; self-information: Vu et al., AdvEnt, CVPR 2019, arXiv:1811.12833, which is this with another f. Deviations: the
    auxiliary levels are those of the network at hand (two for BiSeNet, where the papers have one); auxiliary outputs carry the
    supervised weight of the loss (1, seed report eq. 4) rather than 0.1; the discriminator judges a target batch once and that one
    judgement serves both losses, which is the same arithmetic because no weight changes in between. Source and target pass the
    network separately as in the authors' code, so BatchNorm's running statistics blend both domains; that alone moves the result,
    so `lambda_adv: 0` is the control to compare with, and `batch_norm: source` makes it equal to source-only training. What recipes
    pad is judged like the rest: both domains are padded alike, so it tells a discriminator nothing.
    """

    Config: ClassVar[type[MethodConfig]] = AdversarialConfig
    has_discriminator: ClassVar[bool] = True

    def __init__(self, segmenter: nn.Module, *, config: Any, loss: SegmentationLoss, num_classes: int) -> None:
        """Build one discriminator per adapted output; see `Method.__init__`."""
        super().__init__(segmenter, config=config, loss=loss, num_classes=num_classes)
        levels = 1
        if config.levels == "multi":
            levels += int(segmenter.num_auxiliary)  # type: ignore[arg-type]
        self.discriminators = nn.ModuleList(
            build_discriminator(config.discriminator, num_classes=num_classes, rank=config.rank, dropout=config.dropout)
            for _ in range(levels)
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the segmenter's and the discriminators' parameters."""
        return {
            "segmenter": list(self.segmenter.parameters()),
            "discriminator": list(self.discriminators.parameters()),
        }

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the losses of segmenter and discriminators; see `Method.training_step`."""
        source_output, target_output = forward_domains(
            self.segmenter,
            step.labeled.image,
            step.target.image,
            mixing=self.config.batch_norm,
            target_auxiliary=self.config.levels == "multi",
        )
        loss_seg = self.loss(source_output, step.labeled.label)

        levels = len(self.discriminators)
        lambdas = [self.config.lambda_adv, *([self.config.lambda_adv_auxiliary] * (levels - 1))]
        source_levels = [source_output.logits, *source_output.auxiliary][:levels]
        target_levels = [target_output.logits, *target_output.auxiliary]
        adversarial, discriminating = [], []
        right_on_source, right_on_target = [], []
        for weight, discriminator, source_logits, target_logits in zip(
            lambdas, self.discriminators, source_levels, target_levels, strict=True
        ):
            source_domain = discriminator(self._maps(source_logits.detach()))
            target_domain = discriminator(self._maps(target_logits))
            kind = self.config.kind
            adversarial.append(weight * adversarial_loss(target_domain, SOURCE_DOMAIN, kind=kind))
            discriminating.append(discriminator_loss(source_domain, target_domain, kind=kind))
            right_on_source.append(domain_accuracy(source_domain, SOURCE_DOMAIN, kind=kind))
            right_on_target.append(domain_accuracy(target_domain, TARGET_DOMAIN, kind=kind))
        loss_adv, loss_discriminator = total(adversarial), total(discriminating)
        return StepOutput(
            losses={"discriminator": loss_discriminator, "segmenter": loss_seg + loss_adv},
            logs={
                "loss_seg": loss_seg,
                "loss_adv": loss_adv,
                "loss_discriminator": loss_discriminator,
                "discriminator_accuracy_source": 1 / levels * total(right_on_source),
                "discriminator_accuracy_target": 1 / levels * total(right_on_target),
            },
        )

    def _maps(self, logits: Tensor) -> Tensor:
        """Return what a discriminator sees of a prediction, float [B, C, H, W]."""
        if self.config.input == "self_information":
            return self_information(logits, scaled=self.config.scaled_information)
        return probabilities(logits)
