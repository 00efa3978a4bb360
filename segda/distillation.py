"""Learning from a trained network beside whatever a method learns from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segda.batch_norm import running_averages_kept
from segda.config import DistillationConfig
from segda.losses import total
from segda.losses.distillation import distillation
from segda.methods import Method, StepInput, StepOutput
from segda.types import IGNORE_INDEX, SegmentationOutput


class Distillation:
    """Adds the distance to a teacher's predictions to the loss of any method.

    L = L_method + weight * sum over the configured domains of mean over pixels of T^2 * KL(teacher(x) || segmenter(x))

    Both see the same images: those of the step, augmented, at the size of the training (the patient and consistent teacher of Beyer
    et al., CVPR 2022, arXiv:2106.05237; one that saw clean images would talk of other pixels). Pixels that a recipe padded do not
    count; nor do those of labelled images without a label, of which padding is a part. The teacher is frozen, in evaluation mode.

    Where the method passes these very images through its segmenter, that pass is used. Otherwise (it mixes or restyles them, or
    passes both domains at once) there is one more, in which they are normalized by their own statistics and the running averages of
    batch normalization stay those of the method.

    The teacher is no part of the method: checkpoints do not hold it, the configuration has the digest of its file.
    """

    def __init__(self, teacher: nn.Module, settings: DistillationConfig) -> None:
        """Keep both.

        Args:
            teacher: a segmenter, on the device of the training.
            settings: temperature, weight and domains.
        """
        self._teacher = teacher.requires_grad_(False).eval()
        self._settings = settings

    def training_step(self, method: Method, step: StepInput) -> StepOutput:
        """Return the method's losses, the segmenter's with the distance to the teacher; see `Method.training_step`.

        Args:
            method: under training.
            step: as the method gets it; with target images if the teacher is asked about these.
        """
        batches = list(self._batches(step))
        with _watched(method.segmenter, [image for image, _ in batches]) as seen:
            output = method.training_step(step)
        losses = []
        for (image, where), logits in zip(batches, seen, strict=True):
            with torch.no_grad():
                wanted = self._teacher(image, auxiliary=False).logits
            if logits is None:
                with running_averages_kept(method.segmenter):
                    logits = method.segmenter(image, auxiliary=False).logits
            losses.append(distillation(logits, wanted, temperature=self._settings.temperature, where=where))
        loss_kd = total(losses)
        whole = output.losses["segmenter"] + self._settings.weight * loss_kd
        return output._replace(
            losses={**output.losses, "segmenter": whole}, logs={**output.logs, "loss_distillation": loss_kd}
        )

    def _batches(self, step: StepInput) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the images that the teacher is asked about, and which of their pixels count."""
        if self._settings.images in ("source", "both"):
            yield step.labeled.image, step.labeled.label != IGNORE_INDEX
        if self._settings.images in ("target", "both"):
            yield step.target.image, step.target.valid


@contextmanager
def _watched(segmenter: nn.Module, images: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
    """Yield a list that holds after the block what the segmenter said of each of the images in training, None where nothing."""
    seen: list[Tensor | None] = [None] * len(images)

    def look(module: nn.Module, inputs: tuple[Any, ...], output: SegmentationOutput) -> None:
        for number, image in enumerate(images):
            if inputs and inputs[0] is image and module.training and seen[number] is None:
                seen[number] = output.logits

    hook = segmenter.register_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()
