"""The gradients of one step, however many processes and micro-batches compute them."""

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segda.config import TrainConfig
from segda.device import autocast
from segda.distributed import global_mean, global_sum, synchronize_batch_norm
from segda.errors import ConfigError
from segda.methods import Method, StepOutput
from segda.team import Team
from segda.types import IGNORE_INDEX, LabeledBatch, UnlabeledBatch


def images_at_once(config: TrainConfig, *, micro_batch: int | None, processes: int) -> int:
    """Return how many images of each domain a process passes through the network at once.

    Args:
        config: the run.
        micro_batch: as asked for, or None.
        processes: number of processes that share the batch.

    Returns:
        `micro_batch`, or all images of a process.

    Raises:
        ConfigError: the batch cannot be shared out like that, or in parts of less than two images, which BatchNorm needs.
    """
    part, left = divmod(config.batch_size, processes) if processes > 0 else (0, 0)
    if part < 2 or left:
        raise ConfigError(
            f"batch_size {config.batch_size} cannot be shared by {processes} processes: each needs equally many images, "
            "at least 2; use another number of processes or a larger batch"
        )
    if micro_batch is None:
        return part
    if micro_batch < 2 or part % micro_batch:
        raise ConfigError(
            f"micro_batch must be at least 2 and divide the {part} images of each process (batch_size {config.batch_size}, "
            f"processes {processes}), got {micro_batch}; use one of {[n for n in range(2, part + 1) if part % n == 0]}"
        )
    return micro_batch


class Gradients:
    """Runs a method forward and backward.

    Several processes: DistributedDataParallel averages the gradients of the ranks (`segda.distributed` says why that is the
    gradient of the whole batch) while they are computed. Its documentation speaks of one backward pass per forward pass. It holds
    for several as long as each parameter gets its gradient in exactly one of them, which groups that do not overlap ensure.

    Micro-batches: losses are divided by their number, and gradients add up. A mean over labelled pixels is kept one over the pixels
    of the whole batch: each micro-batch's supervised loss is weighted by its share of them.

    Attributes:
        at_once: images of each domain that pass through the network at once.
    """

    def __init__(
        self,
        config: TrainConfig,
        method: Method,
        groups: Mapping[str, list[nn.Parameter]],
        scaler: torch.amp.GradScaler,
        *,
        team: Team,
        dtype: torch.dtype,
        micro_batch: int | None,
    ) -> None:
        """Prepare the method for the team; with several processes its BatchNorms become synchronized ones.

        Args:
            config: the run.
            method: on its device.
            groups: parameter group -> its parameters.
            scaler: of the losses.
            team: the processes that train it.
            dtype: what convolutions compute in.
            micro_batch: images of each domain at once; None: all that this process has of a batch.

        Raises:
            ConfigError: the batch cannot be shared out like that.
        """
        self.at_once = images_at_once(config, micro_batch=micro_batch, processes=team.size)
        self._method = method
        self._groups = groups
        self._scaler = scaler
        self._device = team.device
        self._dtype = dtype
        self._together: DistributedDataParallel | None = None
        if team.size > 1:
            synchronize_batch_norm(method)
            self._together = DistributedDataParallel(
                _TrainingStep(method),
                gradient_as_bucket_view=True,
                # Auxiliary heads without a loss get no gradient, and it would be waited for.
                find_unused_parameters=config.loss.auxiliary_weight == 0,
            )

    def compute(
        self, labeled: LabeledBatch, target: UnlabeledBatch, *, progress: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Add the gradients of one step to the parameters, each group's from its own loss.

        Args:
            labeled: this process's labelled images.
            target: its target images.
            progress: share of the training that has passed, in [0, 1].

        Returns:
            Group -> its loss, detached, of the whole batch; and what the method logged, averaged over this process's micro-batches.
        """
        pieces = self._pieces(labeled, target)
        losses: list[dict[str, Tensor]] = []
        logs: list[Mapping[str, Tensor]] = []
        try:
            for number, (piece, target_piece, share) in enumerate(pieces, start=1):
                self._method.loss.share = share
                with self._averaging(number == len(pieces)):
                    output = self.forward(piece, target_piece, progress=progress)
                    self.backward(output.losses, pieces=len(pieces))
                losses.append({group: loss.detach() for group, loss in output.losses.items()})
                logs.append(output.logs)
        finally:
            self._method.loss.share = None
        whole = global_mean(torch.stack([_mean([loss[group] for loss in losses]) for group in losses[0]]))
        return (
            dict(zip(losses[0], whole.unbind(), strict=True)),
            {name: _mean([log[name] for log in logs]) for name in logs[0]},
        )

    def forward(self, labeled: LabeledBatch, target: UnlabeledBatch, *, progress: float) -> StepOutput:
        """Return the losses of one micro-batch; see `compute`."""
        with autocast(self._device, self._dtype):
            if self._together is None:
                return self._method.training_step(labeled, target, progress=progress)
            output: StepOutput = self._together(labeled, target, progress=progress)
            return output

    def backward(self, losses: Mapping[str, Tensor], *, pieces: int = 1) -> None:
        """Back-propagate each group's loss, divided by the number of micro-batches, into its own parameters only."""
        last = len(losses) - 1
        for index, (group, loss) in enumerate(losses.items()):
            scaled = self._scaler.scale(loss if pieces == 1 else loss / pieces)
            torch.autograd.backward(scaled, inputs=self._groups[group], retain_graph=index < last)

    def _averaging(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Leave the averaging over ranks to the last micro-batch, whose gradients are the sum of all."""
        if self._together is None or last:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = self._together.no_sync()
        return context

    def _pieces(
        self, labeled: LabeledBatch, target: UnlabeledBatch
    ) -> list[tuple[LabeledBatch, UnlabeledBatch, Tensor | None]]:
        """Cut a batch into micro-batches, each with its labelled pixels over the mean of all; None for a single one."""
        if self.at_once >= len(labeled.image):
            return [(labeled, target, None)]
        number = len(labeled.image) // self.at_once
        images, labels = labeled.image.chunk(number), labeled.label.chunk(number)
        targets = target.image.chunk(number) if len(target.image) else (target.image,) * number
        counts = global_sum(torch.stack([(label != IGNORE_INDEX).sum() for label in labels]))
        shares = number * counts / counts.sum().clamp(min=1)
        return [
            (LabeledBatch(image, label), UnlabeledBatch(target_image), share)
            for image, label, target_image, share in zip(images, labels, targets, shares, strict=True)
        ]


class _TrainingStep(nn.Module):
    """A method's training step as a module's forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, labeled: LabeledBatch, target: UnlabeledBatch, *, progress: float) -> StepOutput:
        return self.method.training_step(labeled, target, progress=progress)


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)
