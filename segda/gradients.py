"""The gradients of one step, however many processes and micro-batches compute them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segda.batch_norm import MIN_IMAGES_AT_ONCE
from segda.config import TrainConfig
from segda.device import autocast
from segda.distillation import Distillation
from segda.distributed import global_sum, synchronize_batch_norm
from segda.errors import ConfigError
from segda.losses import Loss
from segda.losses.additive import differentiate
from segda.methods import Method, StepInput, StepOutput
from segda.team import Team


def images_at_once(config: TrainConfig, *, micro_batch: int | None, processes: int) -> int:
    """Return how many images of each domain a process passes through the network at once.

    Args:
        config: the run.
        micro_batch: as asked for, or None.
        processes: number of processes that share the batch.

    Returns:
        `micro_batch`, or all images of a process.

    Raises:
        ConfigError: the batch cannot be shared out like that, in parts of less than two images, which BatchNorm needs, or such that
            BatchNorm sees fewer than `MIN_IMAGES_AT_ONCE` images of all processes at once where the batch has as many.
    """
    part, left = divmod(config.batch_size, processes) if processes > 0 else (0, 0)
    if part < 2 or left:
        raise ConfigError(
            f"batch_size {config.batch_size} cannot be shared by {processes} processes: each needs equally many images, "
            "at least 2; use another number of processes or a larger batch"
        )
    if micro_batch is None:
        return part
    allowed = micro_batches(config.batch_size, processes=processes)
    if micro_batch not in allowed:
        raise ConfigError(
            f"micro_batch must be one of {allowed}, got {micro_batch}: it divides the {part} images of each process (batch_size "
            f"{config.batch_size}, processes {processes}), and with fewer images at once (at least {MIN_IMAGES_AT_ONCE} over all "
            "processes) batch normalization would train another network"
        )
    return micro_batch


def micro_batches(batch_size: int, *, processes: int) -> list[int]:
    """Return the numbers of images that a process may pass through the network at once, ascending; the last is all that it has.

    Args:
        batch_size: images of each domain per step.
        processes: number of processes that share the batch equally.

    Example:
        >>> micro_batches(16, processes=1), micro_batches(8, processes=2), micro_batches(2, processes=1)
        ([4, 8, 16], [2, 4], [2])
    """
    part = batch_size // processes
    enough = min(MIN_IMAGES_AT_ONCE, batch_size)
    return [size for size in range(2, part + 1) if part % size == 0 and size * processes >= enough]


class Gradients:
    """Runs a method forward and backward.

    A loss is a formula of sums (`segda.losses.additive`), so its gradient needs the sums of the whole batch before any part of it
    can be back-propagated. One process that has the batch whole knows them after its forward pass; several add theirs up; with
    micro-batches all parts pass forward once without a graph, for their sums alone, and then each one passes forward and
    backward. That is one forward pass more, and exact for means over whatever pixels, Dice included.

    DistributedDataParallel exchanges gradients while they are computed (`segda.distributed` says why they are those of the whole
    batch). Its documentation speaks of one backward pass per forward pass. It holds for several as long as each parameter gets its
    gradient in exactly one of them, which groups that do not overlap ensure.

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
        distillation: Distillation | None = None,
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
            distillation: what the method's losses are put together with; None: nothing.

        Raises:
            ConfigError: the batch cannot be shared out like that.
        """
        self.at_once = images_at_once(config, micro_batch=micro_batch, processes=team.size)
        self._method = method
        self._groups = groups
        self._scaler = scaler
        self._team = team
        self._dtype = dtype
        self._step = _TrainingStep(method, distillation)
        self._together: DistributedDataParallel | None = None
        if team.size > 1:
            synchronize_batch_norm(method)
            self._together = DistributedDataParallel(
                self._step,
                gradient_as_bucket_view=True,
                # Auxiliary and boundary heads without a loss get no gradient, and it would be waited for.
                find_unused_parameters=0 in (config.loss.auxiliary_weight, config.loss.boundary_weight),
            )

    def compute(self, step: StepInput) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Add the gradients of one step to the parameters, each group's from its own loss.

        Args:
            step: what this process has of the batch.

        Returns:
            Group -> its loss, and what the method logged; detached scalars. Losses are those of the whole batch, logged scalars are
            averaged over this process's micro-batches.
        """
        parts = step.parts(self.at_once)
        whole = None if len(parts) == 1 else self._sums_of(parts)
        scalars: list[dict[str, Tensor]] = []
        for number, part in enumerate(parts, start=1):
            with self._exchanging(number == len(parts)):
                output = self.forward(part)
                if whole is None:
                    whole = Sums.of(output).over_processes()
                losses = self.backward(output, whole)
            scalars.append({name: item.detach() for name, item in output.logs.items() if isinstance(item, Tensor)})
        assert whole is not None
        with torch.no_grad():
            logs = {
                name: item.formula(whole.logs[name])
                if isinstance(item, Loss)
                else torch.stack([logged[name] for logged in scalars]).mean(0)
                for name, item in output.logs.items()
            }
        return losses, logs

    def forward(self, part: StepInput) -> StepOutput:
        """Return the losses of a micro-batch; see `compute`."""
        with autocast(self._team.device, self._dtype):
            sums = (self._step if self._together is None else self._together)(part)
        output = self._step.take()
        losses = {group: Loss(sums[group], loss.formula) for group, loss in output.losses.items()}
        return StepOutput(losses, output.logs)

    def backward(self, output: StepOutput, whole: "Sums") -> dict[str, Tensor]:
        """Back-propagate what each group's loss is of the whole batch's into the group's own parameters.

        Args:
            output: of a part of the batch.
            whole: the sums of the batch.

        Returns:
            Group -> the batch's loss, detached.
        """
        values = {}
        last = len(output.losses) - 1
        for index, (group, loss) in enumerate(output.losses.items()):
            values[group], weights = differentiate(loss, whole.losses[group])
            torch.autograd.backward(
                loss.sums,
                self._scaler.scale(self._team.size * weights),
                inputs=self._groups[group],
                retain_graph=index < last,
            )
        return values

    def _sums_of(self, parts: Sequence[StepInput]) -> "Sums":
        """Return the sums of the batch from forward passes that leave no trace."""
        device = self._team.device
        with torch.no_grad(), _restored(self._method), torch.random.fork_rng([device] if device.type == "cuda" else []):
            sums = []
            for part in parts:
                with autocast(device, self._dtype):
                    sums.append(Sums.of(self._step.losses_of(part)))
        return Sums.added(sums).over_processes()

    def _exchanging(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Leave the exchange of gradients to the last micro-batch, whose gradients are the sum of all."""
        if self._together is None or last:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = self._together.no_sync()
        return context


class Sums(NamedTuple):
    """What losses, and those among the logs, are made from: of a part of a batch or of a batch, detached."""

    losses: dict[str, Tensor]
    logs: dict[str, Tensor]

    @classmethod
    def of(cls, output: StepOutput) -> "Sums":
        """Return the sums of a part of a batch."""
        return cls(
            {group: loss.sums.detach() for group, loss in output.losses.items()},
            {name: item.sums.detach() for name, item in output.logs.items() if isinstance(item, Loss)},
        )

    @classmethod
    def added(cls, parts: Sequence["Sums"]) -> "Sums":
        """Return the sums of several parts together."""

        def add(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.stack([item[name] for item in items]).sum(0) for name in items[0]}

        return cls(add([part.losses for part in parts]), add([part.logs for part in parts]))

    def over_processes(self) -> "Sums":
        """Return the sums over all processes, in one exchange."""
        vectors = [*self.losses.values(), *self.logs.values()]
        pieces = iter(torch.split(global_sum(torch.cat(vectors)), [len(vector) for vector in vectors]))
        return Sums({group: next(pieces) for group in self.losses}, {name: next(pieces) for name in self.logs})


def _checked(output: StepOutput) -> StepOutput:
    for group, loss in output.losses.items():
        if not isinstance(loss, Loss):
            raise TypeError(
                f"the loss of group {group!r} must be a segda.losses.Loss, which says what it is a mean of, got a "
                f"{type(loss).__name__}; write total / count as segda.losses.mean(total, count)"
            )
    return output


class _TrainingStep(nn.Module):
    """A method's training step as a module's forward pass, which is what DistributedDataParallel wraps.

    That wants tensors as results and may replace them by others, so losses are taken apart and put together again.
    """

    def __init__(self, method: Method, distillation: Distillation | None) -> None:
        super().__init__()
        self.method = method
        self._distillation = distillation

    def losses_of(self, part: StepInput) -> StepOutput:
        if self._distillation is None:
            return _checked(self.method.training_step(part))
        return _checked(self._distillation.training_step(self.method, part))

    def forward(self, part: StepInput) -> dict[str, Tensor]:
        self._output = self.losses_of(part)
        return {group: loss.sums for group, loss in self._output.losses.items()}

    def take(self) -> StepOutput:
        output = self._output
        del self._output
        return output


@contextlib.contextmanager
def _restored(method: nn.Module) -> Iterator[None]:
    """Give all buffers back the values that they had before the block."""
    kept = [(buffer, buffer.clone()) for buffer in method.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
