"""Entropy minimization (MinEnt): predictions on the target shall be as decided as those on the source."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from segda.batch_norm import forward_domains
from segda.losses import total
from segda.losses.class_prior import class_prior
from segda.losses.entropy import entropy
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig
from segda.tunable import Range


class MinEntropyConfig(TwoDomainConfig):
    """Settings of `MinEntropy`; the weights of the entropy are those of the authors' code."""

    name: Literal["min_entropy"] = "min_entropy"
    lambda_ent: Annotated[float, Range(1e-4, 1.0, log=True)] = Field(
        1e-3, ge=0, description="weight of the entropy of the main output on target images"
    )
    lambda_ent_auxiliary: Annotated[float, Range(1e-5, 0.1, log=True)] = Field(
        0.0, ge=0, description="the same of each auxiliary output (ADVENT: 2e-4); 0: none is computed on target images"
    )
    lambda_prior: Annotated[float, Range(1.0, 100.0, log=True)] = Field(
        10.0,
        ge=0,
        description="weight of the guard against collapse, in weights of the entropy that it guards; 0: without",
    )
    prior_share: Annotated[float, Range(0.1, 0.9)] = Field(
        0.5, ge=0, le=1, description="share of a class's frequency in the source's labels that it is owed on the target"
    )


class MinEntropy(Method):
    """Supervised training on the source, and decided predictions on the target.

    L = L_seg(source) + sum_i lambda_i * (H_i + lambda_prior * G_i)
    H = mean over pixels of -sum_c p_c ln p_c / ln C                          p = softmax(P(target)), so H is in [0, 1]
    G = sum_c max(0, prior_share * f_c - mean over pixels of p_c)             f_c = frequency of class c in the source's labels

    The sum runs over the main output and, if `lambda_ent_auxiliary` is not 0, over the auxiliary ones.

    H alone is lowest where every pixel is of the same class, and the more it weighs the more surely a network ends there. G is the
    guard against that, and it reads no label of the target: a class that the source shows keeps at least a share of its frequency.
    With G weighing as much as it does by default, what the entropy gains by giving a class up altogether is less than what G takes.

    Source: Vu et al., ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation, CVPR 2019,
    arXiv:1811.12833: H is its direct entropy minimization, G its class-ratio prior. Deviations: the paper applies G in some of its
    experiments and its code does not have it; its weight, of which the facts at hand say nothing, is ours, and relative, so that a
    search that raises the entropy's weight does not leave the guard behind; what G counts (`segda.losses.class_prior`); auxiliary
    outputs carry the supervised weight of the loss on the source, 0.1 in the code. The figure of 45.5 mIoU that the paper ends with
    is an ensemble of two networks, of which MinEnt is one.
    """

    Config: ClassVar[type[MethodConfig]] = MinEntropyConfig

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss plus the entropy and its guard; see `Method.training_step`."""
        config = self.config
        source, target = forward_domains(
            self.segmenter,
            step.labeled.image,
            step.target.image,
            mixing=config.batch_norm,
            target_auxiliary=config.lambda_ent_auxiliary > 0,
        )
        loss_seg = self.loss(source, step.labeled.label)
        weights = [config.lambda_ent, *([config.lambda_ent_auxiliary] * len(target.auxiliary))]
        entropies, guards = [], []
        for weight, logits in zip(weights, (target.logits, *target.auxiliary), strict=True):
            entropies.append(weight * entropy(logits, step.target.valid))
            guard = class_prior(logits, step.labeled.label, step.target.valid, share=config.prior_share)
            guards.append(weight * config.lambda_prior * guard)
        loss_ent, loss_prior = total(entropies), total(guards)
        return StepOutput(
            losses={"segmenter": loss_seg + loss_ent + loss_prior},
            logs={"loss_seg": loss_seg, "loss_ent": loss_ent, "loss_prior": loss_prior},
        )
