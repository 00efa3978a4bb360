"""Fourier domain adaptation (FDA): source images in the light of target images, decided predictions on the target."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from segda.batch_norm import forward_domains
from segda.datasets.loaders import denormalize, normalize
from segda.losses.cross_entropy import cross_entropy
from segda.losses.entropy import charbonnier_entropy
from segda.methods.base import Method, MethodConfig, StepInput, StepOutput, TwoDomainConfig, equal_rounds
from segda.methods.thresholds import NUM_BINS, count_confidences, label_the_confident, quantile_thresholds
from segda.transforms.fourier import swap_amplitude
from segda.tunable import Choice, Range
from segda.types import PseudoLabel


class FdaConfig(TwoDomainConfig):
    """Settings of `Fda`; defaults are those of the authors' code."""

    name: Literal["fda"] = "fda"
    beta: Annotated[float, Choice(0.01, 0.05, 0.09)] = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="highest frequency whose amplitude is swapped, in shares of the image's shorter side (FDA: 0.01, 0.05 and "
        "0.09, one network each)",
    )
    lambda_ent: Annotated[float, Range(1e-3, 1e-1, log=True)] = Field(
        5e-3, ge=0, description="weight of the entropy on target images"
    )
    eta: Annotated[float, Range(1.0, 3.0)] = Field(
        2.0, gt=0, description="exponent of the squared entropy: the larger, the less decided pixels count"
    )
    entropy_from: Annotated[float, Range(0.0, 0.5)] = Field(
        0.0, ge=0, lt=1, description="share of the training after which the entropy counts"
    )
    rounds: Annotated[int, Choice(0, 1, 2)] = Field(
        0, ge=0, le=100, description="how often the target is labelled, at equal distances; 0: never"
    )
    warm_up: Annotated[float, Range(0.3, 0.7)] = Field(
        0.5, ge=0, lt=1, description="share of the training that precedes the first round; used with rounds"
    )
    quantile: Annotated[float, Choice(0.34, 0.66)] = Field(
        0.66,
        ge=0,
        lt=1,
        description="share of each class's predictions, the least confident ones, that get no pseudo-label as far as they do not "
        "exceed `cap`: 0.66 in the code, 0.34 as the paper's text reads; used with rounds",
    )
    cap: Annotated[float, Range(0.8, 0.99)] = Field(
        0.9, gt=0, le=1, description="probability above which a prediction is a pseudo-label anyway; used with rounds"
    )
    lambda_target: Annotated[float, Range(0.1, 10.0, log=True)] = Field(
        1.0, ge=0, description="weight of the cross-entropy on pseudo-labels; used with rounds"
    )


class Fda(Method):
    """Supervised training on source images whose low frequencies have the amplitude of target images.

    L = L_seg(P(swap(source, target)), label) + lambda_ent * mean over pixels of (h^2 + 1e-8)^eta
        + lambda_target * mean over labelled pixels of -log P(target)[pseudo-label]                    in rounds

    `swap` is `segda.transforms.fourier.swap_amplitude` on values from 0 to 255, each image of the batch with its own target image;
    it clips nothing. h is the entropy of P(target) in shares of ln C, the largest one. The authors' code divides by ln 19 whatever
    the number of classes: with 7 classes the term would be five times smaller.

    At the beginning of a round the network labels the target's training images. A prediction becomes a pseudo-label where it is
    more confident than the share `quantile` of the predictions of its class, or than `cap` (`segda.methods.thresholds`). A class
    that is never predicted gets none.

    The paper's multi-band transfer is the mean of the probabilities of three networks, with beta 0.01, 0.05 and 0.09: train the
    three, then `segda evaluate` scores their checkpoints together.

    Source: Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020, arXiv:2004.05498, and its code.
    Deviations, with reasons:

    - rounds take place within one run and label with the network under training, so that a run is one training of a given length
      that can be compared with those of other methods. In the paper three networks label together what is then trained anew;
    - the entropy is that of the logits at the image's size, which is what networks here return; theirs is computed before the
      last enlargement;
    - the images that are swapped have passed the recipe `data.augmentation`; what it pads is part of them, and no pixel of the
      target that is padded counts in a loss;
    - L_seg is the configured supervised loss, with auxiliary outputs; on target images there are none;
    - thresholds are rounded down to a bin's edge, and the threshold of a single prediction is that prediction, where the code's
      index leaves the list.

    `lambda_ent: 0` leaves the mixing of BatchNorm's statistics, see `batch_norm`; `data.style: {name: fda}` is the swap alone, for
    any method.
    """

    Config: ClassVar[type[MethodConfig]] = FdaConfig

    @classmethod
    def fits_source(cls, settings: Mapping[str, Any]) -> bool:
        """Return that it does not: it learns from source images in the style of the target; see `Method.fits_source`."""
        return False

    def training_step(self, step: StepInput) -> StepOutput:
        """Return the supervised loss, the entropy, and in rounds the loss on pseudo-labels; see `Method.training_step`."""
        config, pseudo_label = self.config, step.target.pseudo_label
        image = self._swapped(step)
        with_entropy = step.progress >= config.entropy_from
        if pseudo_label is None and not with_entropy:
            loss_seg = self.loss(self.segmenter(image), step.labeled.label)
            return StepOutput(losses={"segmenter": loss_seg}, logs={"loss_seg": loss_seg})
        source, target = forward_domains(
            self.segmenter, image, step.target.image, mixing=config.batch_norm, target_auxiliary=False
        )
        loss = loss_seg = self.loss(source, step.labeled.label)
        logs = {"loss_seg": loss_seg}
        if with_entropy:
            logs["loss_ent"] = charbonnier_entropy(target.logits, step.target.valid, eta=config.eta)
            loss = loss + config.lambda_ent * logs["loss_ent"]
        if pseudo_label is not None:
            logs["loss_target"] = cross_entropy(target.logits, pseudo_label.label)
            loss = loss + config.lambda_target * logs["loss_target"]
        return StepOutput(losses={"segmenter": loss}, logs=logs)

    def round_starts(self) -> tuple[float, ...]:
        """Return equal distances after the warm-up; see `Method.round_starts`."""
        warm_up = self.config.warm_up
        return equal_rounds(warm_up, 1 - warm_up, rounds=self.config.rounds)

    def pseudo_labels(self, images: Iterable[Tensor], *, number: int) -> Iterator[PseudoLabel]:
        """Yield what the network is sure of; see `Method.pseudo_labels`."""
        device = next(self.segmenter.parameters()).device
        counts = torch.zeros(self.num_classes, NUM_BINS, dtype=torch.int64, device=device)
        for image in images:
            counts += count_confidences(self._probs(image))
        thresholds = quantile_thresholds(counts, self.config.quantile, cap=self.config.cap)
        for image in images:
            yield PseudoLabel(label_the_confident(self._probs(image), thresholds))

    @torch.no_grad()
    def _swapped(self, step: StepInput) -> Tensor:
        source, target = denormalize(step.labeled.image), denormalize(step.target.image)
        return normalize(swap_amplitude(source, target, beta=self.config.beta))

    def _probs(self, image: Tensor) -> Tensor:
        logits: Tensor = self.segmenter(image, auxiliary=False).logits
        return logits.float().softmax(dim=1)
