"""The training loop: the only place with `optimizer.step()`.

`train(config, report, folder=...)` is the trainable function that this library supplies. `report` is its only seam to the
outside: a command line draws a progress bar with it, an orchestrator decides with it whether the run goes on.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from segda.allocator import keep_freed_memory
from segda.checkpoint import read_checkpoint, restore_checkpoint, save_checkpoint
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.cache import DecodedSplit
from segda.datasets.loaders import RawBatch, normalize, training_batches
from segda.device import autocast, resolve_device, resolve_precision
from segda.environment import describe_environment
from segda.errors import OutOfMemoryError, TrainingDivergedError
from segda.files import write_json, write_text
from segda.losses import SegmentationLoss
from segda.methods import METHODS, Method
from segda.models import build_segmenter
from segda.optim import build_optimizer, poly_factor, set_learning_rate
from segda.scoring import Scorer
from segda.splits import Splits, data_fingerprint, open_splits
from segda.types import LabeledBatch, UnlabeledBatch

__all__ = ["OnStep", "Report", "TrainResult", "data_fingerprint", "train"]

log = logging.getLogger(__name__)

Report = Callable[[int, Mapping[str, float], Path], None]
OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        step: number of updates made.
        metrics: the last report's metrics.
        folder: the run folder.
    """

    step: int
    metrics: Mapping[str, float]
    folder: Path


def train(
    config: TrainConfig,
    report: Report,
    *,
    folder: Path,
    acknowledged: int = 0,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train one network, or go on with a run that stopped.

    Args:
        config: everything that decides the result.
        report: called with (step, metrics, checkpoint) every `report_every` steps and at the end, after the checkpoint of that
            step is on disk. It may raise to stop the run.
        folder: where the run lives; a checkpoint of the same configuration found there is continued.
        acknowledged: last step whose report is known to have arrived; kept reports after it are sent again on a resume.
        on_step: called with (step, loss of the segmenter) about every second, for progress bars.

    Returns:
        The last step and its metrics.

    Raises:
        TrainingDivergedError: if a loss is NaN or infinite.
        OutOfMemoryError: if the device runs out of memory.
        SegdaError: if configuration, data, weights or device cannot be used.
    """
    device = resolve_device(config.device)
    splits = open_splits(config)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    state = read_checkpoint(checkpoint) if checkpoint.exists() else None

    run = _Run(config, splits, device, folder, resumed=state is not None)
    if state is not None:
        restore_checkpoint(state, config=config, method=run.method, optimizers=run.optimizers, scaler=run.scaler)
        run.step, run.history = state["step"], json.loads(state["history"])
        run.seconds = run.history[-1]["seconds"]
        log.info("continues at step %d of %d", run.step, config.steps)
        for kept in run.history:
            if kept["step"] > acknowledged:
                report(kept["step"], kept["metrics"], checkpoint)
    else:
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / "environment.json", describe_environment(device))

    with run.loading():
        _advance_and_report(run, config, report, checkpoint, on_step)
    return TrainResult(step=run.step, metrics=run.history[-1]["metrics"], folder=folder)


def _advance_and_report(
    run: "_Run", config: TrainConfig, report: Report, checkpoint: Path, on_step: OnStep | None
) -> None:
    """Train to the end, from report to report."""
    while run.step < config.steps:
        until = min((run.step // config.report_every + 1) * config.report_every, config.steps)
        try:
            metrics = run.advance(until, on_step)
        except torch.OutOfMemoryError as error:
            height, width = config.data.train_size
            raise OutOfMemoryError(
                f"{run.device} ran out of memory at batch_size {config.batch_size}, {height}x{width}; "
                "use a smaller batch or crop"
            ) from error
        metrics |= run.score(final=until == config.steps)
        run.history.append({"step": run.step, "time": time.time(), "seconds": run.seconds, "metrics": metrics})
        save_checkpoint(
            checkpoint,
            config=config,
            step=run.step,
            method=run.method,
            optimizers=run.optimizers,
            scaler=run.scaler,
            history=run.history,
        )
        lines = "".join(json.dumps(kept) + "\n" for kept in run.history)
        write_text(checkpoint.with_name("metrics.jsonl"), lines)
        report(run.step, metrics, checkpoint)


class _Run:
    """The parts of a run that change from step to step."""

    def __init__(
        self, config: TrainConfig, splits: Splits, device: torch.device, folder: Path, *, resumed: bool
    ) -> None:
        self.config = config
        self.splits = splits
        self.device = device
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
        )

    def _image(self, batch: RawBatch) -> Tensor:
        return normalize(batch.image.to(self.device, non_blocking=True))

    def advance(self, until: int, on_step: OnStep | None) -> dict[str, float]:
        """Make updates up to step `until` and return the averages of what the method logged."""
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
            with autocast(self.device, self.dtype):
                output = method.training_step(labeled, target, progress=self.step / config.steps)
            self._update(output.losses, factor)
            method.after_step()
            total = torch.stack([loss.detach() for loss in output.losses.values()]).sum()
            first_bad = torch.where((first_bad < 0) & ~torch.isfinite(total), self.step, first_bad)
            for name, value in output.logs.items():
                sums[name] = sums[name] + value if name in sums else value
            self.step += 1
            now = time.perf_counter()
            if now - last_shown > 1.0 or self.step == until:
                # One host synchronization per second: divergence is noticed and the progress bar is fed.
                last_shown = now
                self._check_finite(int(first_bad.item()))
                if on_step is not None:
                    on_step(self.step, float(output.losses["segmenter"].item()))
        seconds = time.perf_counter() - began
        self.seconds += seconds
        metrics = {f"train/{name}": float(value.item()) / steps for name, value in sums.items()}
        metrics["train/lr"] = config.optimizer.lr * factor
        metrics["train/seconds_per_step"] = seconds / steps
        metrics["train/images_per_second"] = steps * config.batch_size * (1 + method.needs_target) / seconds
        return metrics

    def _update(self, losses: Mapping[str, Tensor], factor: float) -> None:
        """Back-propagate each group's loss into its own parameters only, then update all groups."""
        last = len(losses) - 1
        for index, (group, loss) in enumerate(losses.items()):
            torch.autograd.backward(self.scaler.scale(loss), inputs=self.groups[group], retain_graph=index < last)
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
