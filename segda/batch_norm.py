"""Batch normalization with two domains: what statistics images are normalized by, in training and afterwards."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segda.types import Boundary, SegmentationOutput

# Batch normalization of pooled maps sees one value per image. On a trained BiSeNet-R18 and batches of 8, the gradient's cosine to
# that of the whole batch is 0.86 in parts of 4 images and 0.47 in parts of 2, so smaller parts than 4 are refused where the batch
# has them.
MIN_IMAGES_AT_ONCE = 4

# The mean of a channel varies from image to image: its error falls with the root of their number, and this many suffice.
FEWEST_POOLED = 64
_UBNA_BATCHES = 50

Mixing = Literal["separate", "source", "joint"]
Variance = Literal["linear", "mixture"]
Schedule = Literal["average", "ubna"]


def forward_domains(
    segmenter: nn.Module,
    source: Tensor,
    target: Tensor,
    *,
    mixing: Mixing,
    source_auxiliary: bool | None = None,
    target_auxiliary: bool | None = None,
) -> tuple[SegmentationOutput, SegmentationOutput]:
    """Pass images of two domains through a network in training mode.

    Args:
        segmenter: maps an image to `SegmentationOutput`.
        source: images, float [B, 3, H, W].
        target: images, float [B', 3, H, W].
        mixing: `separate` passes one domain after the other, each normalized by its own statistics; the running averages that
            evaluation uses blend both, which is what AdaptSegNet's code does. `source` does so too, but only the source moves the
            running averages. `joint` passes all images at once, normalized by common statistics.
        source_auxiliary: whether to compute auxiliary outputs of the source; None: in training mode only.
        target_auxiliary: the same of the target.

    Returns:
        The outputs of source and target.
    """
    if mixing == "joint":
        wanted = [segmenter.training if given is None else given for given in (source_auxiliary, target_auxiliary)]
        both = segmenter(torch.cat([source, target]), auxiliary=any(wanted))
        sizes = [len(source), len(target)]
        boundary = both.boundary
        parts = zip(
            both.logits.split(sizes),
            zip(*(scores.split(sizes) for scores in both.auxiliary), strict=True) if both.auxiliary else ((), ()),
            both.features.split(sizes),
            (None, None) if boundary is None else [Boundary(of, boundary.rule) for of in boundary.logits.split(sizes)],
            strict=True,
        )
        first, second = (
            SegmentationOutput(logits, auxiliary if keep else (), features, edges if keep else None)
            for (logits, auxiliary, features, edges), keep in zip(parts, wanted, strict=True)
        )
        return first, second
    of_source = segmenter(source, auxiliary=source_auxiliary)
    if mixing == "separate":
        return of_source, segmenter(target, auxiliary=target_auxiliary)
    with running_averages_kept(segmenter):
        return of_source, segmenter(target, auxiliary=target_auxiliary)


@contextmanager
def running_averages_kept(module: nn.Module) -> Iterator[None]:
    """Keep the running averages of every batch normalization inside a module as they are, also in training mode."""
    layers = _tracked(module)
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def batch_weights(schedule: Schedule, *, images: int, batch_size: int) -> list[float]:
    """Return how much each batch counts in statistics that are collected batch by batch; they sum to 1.

    Args:
        schedule: `average`: as many batches as it takes to see every image, all alike. `ubna`: 50 batches, number k of which (from
            0) moves what was collected before by eta_k = 0.1 * exp(-0.08 * k); the earlier ones count more.
        images: there are.
        batch_size: images per batch.
    """
    if schedule == "average":
        batches = math.ceil(images / batch_size)
        return [1 / batches] * batches
    momenta = [0.1 * math.exp(-0.08 * number) for number in range(_UBNA_BATCHES)]
    weights = [eta * math.prod(1 - later for later in momenta[k + 1 :]) for k, eta in enumerate(momenta)]
    return [weight / sum(weights) for weight in weights]


# What is left of the source's statistics after all of UBNA's moves is 1 minus this.
UBNA_SHARE = 1 - math.prod(1 - 0.1 * math.exp(-0.08 * number) for number in range(_UBNA_BATCHES))


@torch.no_grad()
def blend_statistics(
    segmenter: nn.Module,
    batches: Iterable[Tensor],
    *,
    share: float,
    weights: Sequence[float],
    images: int,
    variance: Variance = "linear",
    part: nn.Module | None = None,
) -> None:
    """Move the statistics that evaluation uses towards those of other images, without labels.

    With m, v those of the layer, m', v' those of the images and a = share:
    m <- (1 - a) * m + a * m'
    v <- (1 - a) * v + a * v'                                  (linear)
    v <- (1 - a) * v + a * v' + a * (1 - a) * (m - m')^2       (mixture)

    Share 1 is AdaBN (Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, arXiv:1603.04779); a smaller one
    is what Schneider et al., NeurIPS 2020, arXiv:2006.16971 and other papers on partial blends do, all linearly. The further term
    is that of values of which the share a comes from the images and the rest from before. UBNA (Klingner et al., Unsupervised
    BatchNorm Adaptation, arXiv:2011.08502) is the share `UBNA_SHARE`, 0.731, with the weights of its schedule, on the trunk alone,
    which is the encoder of its networks: its moving averages with a momentum that decays leave the same statistics, since batches
    are normalized by themselves meanwhile.

    The statistics of the images are the weighted averages over batches of what each layer sees in training mode, where the layers
    before it normalize by batch. Layers on pooled maps have one value per image, whose mean and variance a few images do not tell:
    they follow only where there are `FEWEST_POOLED` images, and keep normalizing as in evaluation otherwise.

    Args:
        segmenter: changed in place; its mode is restored.
        batches: of at least two images, normalized float [B, 3, H, W]; as many as there are weights are taken.
        share: of the images' statistics, in [0, 1].
        weights: of each batch; see `batch_weights`.
        images: how many different ones the batches are made from.
        variance: how variances are blended.
        part: of the segmenter, whose statistics alone move; None: all of it.
    """
    if share == 0:
        return
    supply = iter(batches)
    first = next(supply)
    layers = _tracked(segmenter if part is None else part)
    if images < FEWEST_POOLED:
        pooled = _on_pooled_maps(segmenter, first)
        layers = [layer for layer in layers if layer not in pooled]
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    momenta = [layer.momentum for layer in layers]
    was_training = segmenter.training
    segmenter.train()
    for layer in _tracked(segmenter):
        layer.train(layer in layers)
    collected = 0.0
    for weight, batch in zip(weights, chain([first], supply), strict=False):
        collected += weight
        for layer in layers:
            layer.momentum = weight / collected  # the first one replaces what was there
        segmenter(batch, auxiliary=False)
    segmenter.train(was_training)
    for layer, before, momentum in zip(layers, kept, momenta, strict=True):
        layer.momentum = momentum
        seen = dict(layer.named_buffers())
        between = (before["running_mean"] - seen["running_mean"]).square()
        for name in ("running_mean", "running_var"):
            seen[name].copy_(before[name].lerp(seen[name], share))
        if variance == "mixture":
            seen["running_var"].add_(between, alpha=share * (1 - share))
        seen["num_batches_tracked"].copy_(before["num_batches_tracked"])


def _tracked(module: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


def _on_pooled_maps(segmenter: nn.Module, image: Tensor) -> set[_BatchNorm]:
    """Return the normalizations that see one value per image and channel."""
    found: set[_BatchNorm] = set()

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, _BatchNorm) and inputs[0].shape[2:].numel() == 1:
            found.add(layer)

    was_training = segmenter.training
    segmenter.eval()
    with ExitStack() as hooks:
        for layer in _tracked(segmenter):
            hooks.callback(layer.register_forward_pre_hook(look).remove)
        segmenter(image, auxiliary=False)
    segmenter.train(was_training)
    return found
