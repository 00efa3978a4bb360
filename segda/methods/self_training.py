"""Self-training in rounds on pseudo-labels: class-balanced (CBST), instance-adaptive (IAST) or with one threshold."""

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from segda.batch_norm import forward_domains
from segda.losses.cross_entropy import cross_entropy
from segda.losses.entropy import divergence_from_uniform, entropy
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig, equal_rounds
from segda.methods.thresholds import (
    ADAPTIVE_START,
    adapted_thresholds,
    class_balanced_thresholds,
    constant_thresholds,
    count_confidences,
    label_by_thresholds,
    label_the_confident,
)
from segda.tunable import Choice, Range
from segda.types import IGNORE_INDEX, PseudoLabel

SUBSAMPLING = 4  # thresholds look at every fourth pixel in each direction, as the authors' code does


class SelfTrainingConfig(TwoDomainConfig):
    """Settings of `SelfTraining`."""

    name: str = "self_training"
    warm_up: Annotated[float, Range(0.2, 0.7)] = Field(
        0.4, ge=0, lt=1, description="share of the training that precedes the first round, on the source alone"
    )
    rounds: Annotated[int, Choice(2, 3, 4, 6)] = Field(
        4, ge=1, le=100, description="how often the target is labelled, at equal distances (CBST's code: 6)"
    )
    thresholds: Annotated[
        Literal["class_balanced", "instance_adaptive", "constant"],
        Choice("class_balanced", "instance_adaptive", "constant"),
    ] = Field(
        "class_balanced",
        description="how confident pseudo-labels are: the best portion of each class, thresholds of the classes that follow the "
        "images, or all alike",
    )
    portion: Annotated[float, Range(0.1, 0.4)] = Field(
        0.2,
        gt=0,
        le=1,
        description="share of each class's predictions that is kept in the first round (CBST: 0.2); used by class_balanced",
    )
    portion_step: Annotated[float, Range(0.0, 0.1)] = Field(
        0.05, ge=0, le=1, description="what each round adds to the portion (CBST: 0.05); used by class_balanced"
    )
    portion_max: Annotated[float, Range(0.4, 0.8)] = Field(
        0.5, gt=0, le=1, description="the portion never exceeds this (CBST: 0.5); used by class_balanced"
    )
    confidence: Annotated[float, Range(0.6, 0.99)] = Field(
        0.9, gt=0, lt=1, description="probability that a pseudo-label must exceed; used by thresholds: constant"
    )
    alpha: Annotated[float, Range(0.1, 0.6)] = Field(
        0.2,
        ge=0,
        le=1,
        description="share of a class's pixels that a threshold of 1 keeps in an image (IAST: 0.2); used by instance_adaptive",
    )
    beta: Annotated[float, Range(0.5, 0.99)] = Field(
        0.9,
        ge=0,
        le=1,
        description="what stays of the thresholds from image to image (IAST: 0.9); used by instance_adaptive",
    )
    gamma: Annotated[float, Range(1.0, 16.0)] = Field(
        8.0,
        ge=0,
        description="the share that is kept is alpha * threshold^gamma (IAST: 8); used by instance_adaptive",
    )
    lambda_target: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the cross-entropy on pseudo-labels (CBST: 1)"
    )
    lambda_ent: Annotated[float, Range(0.05, 2.0, log=True)] = Field(
        0.0,
        ge=0,
        description="weight of the entropy, as a share of the largest, where there is no pseudo-label (CBST: 0; IAST: 3 ln C / C "
        "for C classes, 0.46 for 19)",
    )
    lambda_uniform: Annotated[float, Range(1e-3, 0.1, log=True)] = Field(
        0.0,
        ge=0,
        description="weight of the divergence of predictions from uniform ones, in nats, where there is a pseudo-label (CBST: 0; "
        "IAST: 0.1 / C for C classes, 0.005 for 19)",
    )


class SelfTraining(Method):
    """Train on the source, label the target with the network itself, train on both, label again, and so on.

    L = L_seg(source) + lambda_target * mean over labelled pixels of -log p(target)[pseudo-label]
        + lambda_ent * mean over the other pixels of H(p(target)) / ln C
        + lambda_uniform * mean over labelled pixels of KL(uniform || p(target))

    In round r the pseudo-labels are argmax_c p_c / k_c where that exceeds 1. k_c is the confidence that the most confident portion
    portion + (r - 1) * portion_step of the pixels predicted as c exceeds, over all target training images at every fourth pixel
    (`segda.methods.thresholds`, which also states the rounding); or k_c is a constant. With instance-adaptive thresholds the labels
    of an image are its most probable classes above the thresholds as this image has left them; the thresholds begin every round at
    0.9 and go through the images in the order of their listing, which for frames of a video is that of time: an image's labels
    depend on those listed before it.

    Source: Zou et al., Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced Self-Training, ECCV 2018,
    arXiv:1810.07911, and its code. Deviations, so that a run is one training of a given length that can be compared with those of
    other methods: rounds have equally many steps instead of two epochs, the learning rate follows the run's one schedule through
    all of them, and what the paper begins from, a network trained on the source, is the share `warm_up` of the run. Source and
    target have a mean of their own each, with a weight between them, instead of one sum over the pixels of both: the number of
    labelled pixels, which grows from round to round, would be a hidden weight. Spatial priors are left out because they presume one
    point of view, that of a car's camera, and mining images of rare classes because it changes which images are drawn. Auxiliary
    outputs learn from the source alone. The network labels in evaluation mode, whole images at one scale.

    Source of the instance-adaptive thresholds and of the terms `lambda_ent` and `lambda_uniform`, both 0 by default: Mei et al.,
    Instance Adaptive Self-Training for Unsupervised Domain Adaptation, ECCV 2020, arXiv:2008.12197, and its code. Deviations
    besides those above: thresholds move by one image at a time, by a batch there, so that labels do not depend on how many images
    pass at once; the two terms are means over pixels, and over pixels and channels there, which is why its weights of 3 and 0.1 are
    divided by C here; the source is trained on in all rounds, and in none of them there; the warm-up is not adversarial.
    """

    Config: ClassVar[type[MethodConfig]] = SelfTrainingConfig

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss, and after the first labelling that on pseudo-labels; see `Method.training_step`."""
        pseudo_label = step.target.pseudo_label
        if pseudo_label is None:
            loss_seg = self.loss(self.segmenter(step.labeled.image), step.labeled.label)
            return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
        source, target = forward_domains(
            self.segmenter,
            step.labeled.image,
            step.target.image,
            mixing=self.config.batch_norm,
            target_auxiliary=False,
        )
        config, labeled = self.config, pseudo_label.label != IGNORE_INDEX
        loss_seg = self.loss(source, step.labeled.label)
        loss_target = cross_entropy(target.logits, pseudo_label.label)
        whole, logs = loss_seg + config.lambda_target * loss_target, {"loss_seg": loss_seg, "loss_target": loss_target}
        if config.lambda_ent > 0:
            others = ~labeled if step.target.valid is None else ~labeled & step.target.valid
            logs["loss_ent"] = entropy(target.logits, others)
            whole = whole + config.lambda_ent * logs["loss_ent"]
        if config.lambda_uniform > 0:
            logs["loss_uniform"] = divergence_from_uniform(target.logits, labeled)
            whole = whole + config.lambda_uniform * logs["loss_uniform"]
        return StepOutput(losses={"segmenter": whole}, logs=logs)

    def round_starts(self) -> tuple[float, ...]:
        """Return equal distances after the warm-up; see `Method.round_starts`."""
        warm_up = self.config.warm_up
        return equal_rounds(warm_up, 1 - warm_up, rounds=self.config.rounds)

    def pseudo_labels(self, images: Iterable[Tensor], *, number: int) -> Iterator[PseudoLabel]:
        """Yield what the network is sure of; see `Method.pseudo_labels`."""
        if self.config.thresholds == "instance_adaptive":
            yield from self._adaptive_labels(images)
            return
        thresholds = self._thresholds(images, number)
        for image in images:
            yield PseudoLabel(label_by_thresholds(self._logits(image).softmax(dim=1), thresholds))

    def _adaptive_labels(self, images: Iterable[Tensor]) -> Iterator[PseudoLabel]:
        config = self.config
        thresholds = torch.full((self.num_classes,), ADAPTIVE_START, dtype=torch.float64)
        for batch in images:
            labels = []
            for probs in self._logits(batch).softmax(dim=1):
                thresholds = adapted_thresholds(
                    probs, thresholds.to(probs.device), alpha=config.alpha, beta=config.beta, gamma=config.gamma
                )
                labels.append(label_the_confident(probs, thresholds))
            yield PseudoLabel(torch.stack(labels))

    def _thresholds(self, images: Iterable[Tensor], number: int) -> Tensor:
        config = self.config
        if config.thresholds == "constant":
            device = next(self.segmenter.parameters()).device
            return constant_thresholds(self.num_classes, config.confidence, device=device)
        portion = min(config.portion + (number - 1) * config.portion_step, config.portion_max)
        counted = (
            count_confidences(self._logits(image)[:, :, ::SUBSAMPLING, ::SUBSAMPLING].softmax(dim=1))
            for image in images
        )
        counts = next(counted)
        for more in counted:
            counts += more
        return class_balanced_thresholds(counts, portion)

    def _logits(self, image: Tensor) -> Tensor:
        logits: Tensor = self.segmenter(image, auxiliary=False).logits
        return logits.float()
