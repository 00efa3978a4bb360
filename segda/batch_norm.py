"""Batch normalization with two domains: what statistics images are normalized by, in training and afterwards."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segda.types import SegmentationOutput

# Batch normalization of pooled maps sees one value per image. On a trained BiSeNet-R18 and batches of 8, the gradient's cosine to
# that of the whole batch is 0.86 in parts of 4 images and 0.47 in parts of 2, so smaller parts than 4 are refused where the batch
# has them.
MIN_IMAGES_AT_ONCE = 4

Mixing = Literal["separate", "source", "joint"]


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
        parts = zip(
            both.logits.split(sizes),
            zip(*(scores.split(sizes) for scores in both.auxiliary), strict=True) if both.auxiliary else ((), ()),
            both.features.split(sizes),
            strict=True,
        )
        first, second = (
            SegmentationOutput(logits, auxiliary if keep else (), features)
            for (logits, auxiliary, features), keep in zip(parts, wanted, strict=True)
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
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@torch.no_grad()
def blend_statistics(segmenter: nn.Module, images: Iterable[Tensor], *, share: float) -> None:
    """Move the statistics that evaluation uses towards those of other images, without labels.

    mean = (1 - share) * mean + share * mean of the images, and the same of the variance. Share 1 is AdaBN (Li et al., Revisiting
    Batch Normalization for Practical Domain Adaptation, arXiv:1603.04779). Variances are blended linearly as in the papers on
    partial blends (e.g. Schneider et al., NeurIPS 2020, arXiv:2006.16971), though the variance of a mixture has a further term.

    The statistics of the images are the averages over batches of what each layer sees in training mode, where the layers before it
    normalize by batch. Pooled branches see one value per image there.

    Args:
        segmenter: changed in place; its mode is restored.
        images: batches of at least two images, normalized float [B, 3, H, W]; layers on pooled maps want more.
        share: of the images' statistics, in [0, 1].
    """
    layers = [layer for layer in segmenter.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if share == 0 or not layers:
        return
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    momenta = [layer.momentum for layer in layers]
    was_training = segmenter.training
    segmenter.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the average of all batches
    for batch in images:
        segmenter(batch, auxiliary=False)
    segmenter.train(was_training)
    for layer, before, momentum in zip(layers, kept, momenta, strict=True):
        layer.momentum = momentum
        seen = dict(layer.named_buffers())
        for name in ("running_mean", "running_var"):
            seen[name].copy_(before[name].lerp(seen[name], share))
        seen["num_batches_tracked"].copy_(before["num_batches_tracked"])
