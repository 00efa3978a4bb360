"""Learning from a trained network beside whatever a method learns from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segda.batch_norm import running_averages_kept
from segda.config import DistillationConfig
from segda.losses import Loss, total
from segda.losses.distillation import distillation
from segda.methods import Method, StepInput, StepOutput
from segda.models.alignment import FeatureAlignment, Seen
from segda.types import IGNORE_INDEX, SegmentationOutput


class Distillation:
    """Adds the distance to a teacher to the loss of any method.

    L = L_method + weight * sum over the configured domains of D, which for predictions is
    D = mean over pixels of T^2 * KL(teacher(x) || segmenter(x))
    and for features whatever the segmenter's `FeatureAlignment` says.

    Both see the same images: those of the step, augmented, at the size of the training (the patient and consistent teacher of Beyer
    et al., CVPR 2022, arXiv:2106.05237; one that saw clean images would talk of other pixels). Pixels that a recipe padded do not
    count; nor do those of labelled images without a label, of which padding is a part. The teacher is frozen, in evaluation mode.

    Where the method passes these very images through its segmenter, that pass is used. Otherwise (it mixes or restyles them, or
    passes both domains at once) there is one more, in which they are normalized by their own statistics and the running averages of
    batch normalization stay those of the method.

    The teacher is no part of the method: checkpoints do not hold it, the configuration has the digest of its file. The alignment's
    layers are trained: whoever builds the method gives them to it.

    Attributes:
        alignment: that compares features; None: predictions are compared.
    """

    def __init__(
        self, teacher: nn.Module, settings: DistillationConfig, *, alignment: FeatureAlignment | None = None
    ) -> None:
        """Keep all.

        Args:
            teacher: a segmenter, on the device of the training.
            settings: temperature, weight and domains.
            alignment: what compares features, if these are to be learned, on that device too.
        """
        self._teacher = teacher.requires_grad_(False).eval()
        self._settings = settings
        self.alignment = alignment

    def training_step(self, method: Method, step: StepInput) -> StepOutput:
        """Return the method's losses, the segmenter's with the distance to the teacher; see `Method.training_step`.

        Args:
            method: under training.
            step: as the method gets it; with target images if the teacher is asked about these.
        """
        batches = list(self._batches(step))
        inner = () if self.alignment is None else self.alignment.watched
        with _watched(method.segmenter, [image for image, _ in batches], inner) as seen:
            output = method.training_step(step)
            for number, (image, _) in enumerate(batches):
                if seen[number] is None:
                    with running_averages_kept(method.segmenter):
                        method.segmenter(image, auxiliary=False)
        loss_kd = total(
            [self._distance(image, found, where) for (image, where), found in zip(batches, seen, strict=True)]
        )
        whole = output.losses["segmenter"] + self._settings.weight * loss_kd
        return output._replace(
            losses={**output.losses, "segmenter": whole}, logs={**output.logs, "loss_distillation": loss_kd}
        )

    def _distance(self, image: Tensor, seen: Seen | None, where: Tensor | None) -> Loss:
        assert seen is not None
        temperature = self._settings.temperature
        if self.alignment is not None:
            loss: Loss = self.alignment(self._teacher, image, seen, temperature=temperature, where=where)
            return loss
        with torch.no_grad():
            wanted = self._teacher(image, auxiliary=False).logits
        return distillation(seen.output.logits, wanted, temperature=temperature, where=where)

    def _batches(self, step: StepInput) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the images that the teacher is asked about, and which of their pixels count."""
        if self._settings.images in ("source", "both"):
            yield step.labeled.image, step.labeled.label != IGNORE_INDEX
        if self._settings.images in ("target", "both"):
            yield step.target.image, step.target.valid


@contextmanager
def _watched(segmenter: nn.Module, images: Sequence[Tensor], inner: Sequence[str]) -> Iterator[list[Seen | None]]:
    """Yield a list that holds what the segmenter has computed of each of the images in training so far, None where nothing.

    Args:
        segmenter: under training.
        images: batches, as they are passed to it.
        inner: names of its submodules whose outputs are wanted too.
    """
    seen: list[Seen | None] = [None] * len(images)
    outputs: dict[str, Tensor] = {}  # of the pass that goes on

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda _module, _inputs, output: outputs.update({name: output})

    def look(module: nn.Module, inputs: tuple[Any, ...], output: SegmentationOutput) -> None:
        for number, image in enumerate(images):
            if inputs and inputs[0] is image and module.training and seen[number] is None:
                seen[number] = Seen(output, tuple(outputs[name] for name in inner))
        outputs.clear()

    with ExitStack() as hooks:
        for name in inner:
            hooks.callback(segmenter.get_submodule(name).register_forward_hook(keep(name)).remove)
        hooks.callback(segmenter.register_forward_hook(look).remove)
        yield seen
