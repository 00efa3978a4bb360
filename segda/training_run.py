"""One training run in memory: the network under training and what changes from step to step.

The only place with `optimizer.step()`.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from segda.allocator import keep_freed_memory
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import RawBatch, normalize, training_batches
from segda.device import resolve_precision
from segda.distributed import global_mean
from segda.errors import TrainingDivergedError
from segda.gradients import Gradients
from segda.losses import SegmentationLoss
from segda.methods import METHODS, Method
from segda.models import build_segmenter
from segda.optim import build_optimizer, poly_factor, set_learning_rate
from segda.scoring import Scorer
from segda.splits import Splits
from segda.team import Team
from segda.types import LabeledBatch, UnlabeledBatch

OnStep = Callable[[int, float], None]


class TrainingRun:
    """The parts of a run that change from step to step, in one of the processes that train.

    Attributes:
        step: updates made.
        seconds: time spent on them.
        history: one entry per report so far.
        method: the network under training and what trains it.
        optimizers: one per parameter group.
        scaler: of the loss, for float16.
        gradients: computes those of a step.
    """

    def __init__(
        self,
        config: TrainConfig,
        splits: Splits,
        team: Team,
        folder: Path,
        *,
        resumed: bool,
        micro_batch: int | None = None,
    ) -> None:
        """Build network, method and optimizers.

        Args:
            config: the run.
            splits: its decoded images.
            team: the processes that train it.
            folder: where it lives.
            resumed: whether all weights will come from a checkpoint.
            micro_batch: images of each domain to pass through the network at once; None: all that this process has of a batch.

        Raises:
            ConfigError: the batch cannot be shared out like that.
            SegdaError: weights or device cannot be used.
        """
        self.config = config
        self.splits = splits
        self.team = team
        self.device = device = team.device
        self.folder = folder
        self.dtype = resolve_precision(config.precision, device)
        num_classes = len(DATASETS[config.data.source.dataset].classes)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        torch.manual_seed(config.seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        else:
            keep_freed_memory()
        # A resumed run gets all weights from its checkpoint: ImageNet's need not be at hand any more.
        segmenter = build_segmenter(
            config.model.name,
            num_classes=num_classes,
            backbone=config.model.backbone,
            pretrained="none" if resumed else config.model.pretrained,
            weights_file=config.model.weights_file,
        )
        self.method: Method = METHODS[config.method.name](
            segmenter,
            config=config.method,
            loss=SegmentationLoss(config.loss.name, auxiliary_weight=config.loss.auxiliary_weight),
            num_classes=num_classes,
        )
        self.method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.groups = self.method.parameter_groups()
        self.optimizers = {group: self._optimizer(group) for group in self.groups}
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.gradients = Gradients(
            config, self.method, self.groups, self.scaler, team=team, dtype=self.dtype, micro_batch=micro_batch
        )
        self.seconds = 0.0

    def _optimizer(self, group: str) -> Optimizer:
        if group == "segmenter":
            settings = self.config.optimizer
            return build_optimizer(
                self.groups[group],
                name=settings.name,
                lr=settings.lr,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
            )
        adam = self.config.discriminator_optimizer
        return build_optimizer(self.groups[group], name="adam", lr=adam.lr, momentum=adam.beta1, beta2=adam.beta2)

    def loading(self) -> ExitStack:
        """Open the loaders from the current step to the end of the run; closing the result ends them."""
        loaders = ExitStack()
        # Labeled and target images are two independent streams of draws.
        self.labeled_batches = loaders.enter_context(closing(self._batches(self.splits.labeled, stream=0)))
        self.target_batches: Iterator[RawBatch | None] = itertools.repeat(None)
        if self.method.needs_target:
            self.target_batches = loaders.enter_context(closing(self._batches(self.splits.target, stream=1)))
        return loaders

    def _batches(self, split: DecodedSplit, *, stream: int) -> Generator[RawBatch]:
        data = self.config.data
        return training_batches(
            split,
            recipe=data.augmentation,
            size=data.train_size,
            batch_size=self.config.batch_size,
            seed=2 * self.config.seed + stream,
            start_step=self.step,
            steps=self.config.steps - self.step,
            workers=data.workers,
            rank=self.team.rank,
            ranks=self.team.size,
            pinned=self.device.type == "cuda",
        )

    def _image(self, batch: RawBatch) -> Tensor:
        return normalize(batch.image.to(self.device, non_blocking=True))

    def advance(self, until: int, on_step: OnStep | None) -> dict[str, float]:
        """Make updates up to step `until`.

        Args:
            until: step to stop at.
            on_step: called with (step, loss of the segmenter) about every second; on rank 0 only.

        Returns:
            The averages of what the method logged, learning rate and speed.

        Raises:
            TrainingDivergedError: on rank 0, if a loss is NaN or infinite.
        """
        self.team.start_together()
        config, method = self.config, self.method
        method.train()
        schedule = config.schedule
        horizon = schedule.horizon or config.steps
        empty = torch.empty(0, 3, *config.data.train_size, device=self.device)
        sums: dict[str, Tensor] = {}
        first_bad = torch.full((), -1, device=self.device)
        start = self.step
        steps = until - start
        began = last_shown = time.perf_counter()
        factor = 0.0
        draws = zip(self.labeled_batches, self.target_batches, strict=False)
        for labeled_raw, target_raw in itertools.islice(draws, steps):
            factor = poly_factor(self.step, horizon=horizon, power=schedule.power, warmup_steps=schedule.warmup_steps)
            assert labeled_raw.label is not None
            labeled = LabeledBatch(
                self._image(labeled_raw), labeled_raw.label.to(self.device, non_blocking=True).long()
            )
            target = UnlabeledBatch(empty if target_raw is None else self._image(target_raw))
            losses, logs = self.gradients.compute(labeled, target, progress=self.step / config.steps)
            self.update(factor)
            method.after_step()
            total = torch.stack(list(losses.values())).sum()
            first_bad = torch.where((first_bad < 0) & ~torch.isfinite(total), self.step, first_bad)
            for name, value in logs.items():
                sums[name] = sums[name] + value if name in sums else value
            self.step += 1
            now = time.perf_counter()
            if self.team.rank == 0 and (now - last_shown > 1.0 or self.step == until):
                # One host synchronization per second: divergence is noticed and the progress bar is fed.
                last_shown = now
                self._check_finite(int(first_bad.item()))
                if on_step is not None:
                    on_step(self.step, float(losses["segmenter"].item()))
        seconds = time.perf_counter() - began
        self.seconds += seconds
        metrics = {f"train/{name}": float(global_mean(value).item()) / steps for name, value in sums.items()}
        metrics["train/lr"] = config.optimizer.lr * factor
        metrics["train/seconds_per_step"] = seconds / steps
        metrics["train/images_per_second"] = steps * config.batch_size * (1 + method.needs_target) / seconds
        return metrics

    def update(self, factor: float) -> None:
        """Move all groups by their gradients, and clear these.

        Args:
            factor: on the base learning rates.
        """
        clip = self.config.optimizer.grad_clip
        if clip is not None:
            self.scaler.unscale_(self.optimizers["segmenter"])
            nn.utils.clip_grad_norm_(self.groups["segmenter"], clip)
        for optimizer in self.optimizers.values():
            set_learning_rate(optimizer, factor)
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()

    def _check_finite(self, first_bad: int) -> None:
        if first_bad >= 0:
            raise TrainingDivergedError(
                f"the loss became NaN or infinite at step {first_bad} of {self.config.steps} "
                f"(lr {self.config.optimizer.lr:g}, {self.config.method.name}); lower the learning rate or warm up longer"
            )

    def score(self, *, final: bool) -> dict[str, float]:
        """Evaluate what is due at this report; the last one writes result and pictures too."""
        scorer = Scorer(self.config, self.splits, self.method, device=self.device, dtype=self.dtype)
        if not final:
            return scorer.interim()
        return scorer.final(self.folder, step=self.step, seconds=self.seconds)
