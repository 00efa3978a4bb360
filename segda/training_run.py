"""One training run in memory: the network under training and what changes from step to step.

The only place with `optimizer.step()`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segda.allocator import keep_freed_memory
from segda.batch_norm import MIN_IMAGES_AT_ONCE, batch_weights, blend_statistics
from segda.checkpoint import Interval, restore_checkpoint, save_checkpoint
from segda.compression.pruning import Pruning
from segda.config import TrainConfig
from segda.datasets import DATASETS
from segda.datasets.loaders import normalize, training_batches
from segda.datasets.sampling import RareClasses
from segda.datasets.statistics import class_counts
from segda.device import autocast, resolve_precision
from segda.distillation import Distillation
from segda.distributed import global_mean
from segda.errors import TrainingDivergedError
from segda.feed import Feed
from segda.gradients import Gradients, images_at_once
from segda.losses import SegmentationLoss
from segda.losses.class_weights import class_weights
from segda.methods import METHODS, Method
from segda.models import MODELS, Segmenter, build_segmenter
from segda.optim import build_optimizer, poly_factor, set_learning_rate
from segda.predecessors import load_start, load_teacher
from segda.rounds import Round, find_round, forget_rounds, make_round, open_round, round_steps
from segda.scoring import Scorer
from segda.splits import Splits
from segda.team import Team

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
        pruning: which weights are zero.
        feed: what the steps read.
        round: that goes on; None before the first, and for methods without rounds.
        checkpoint: where `save` writes.
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
        self.checkpoint = folder / "checkpoint.pt"
        images = team.size * images_at_once(config, micro_batch=micro_batch, processes=team.size)
        self.dtype = resolve_precision(config.precision, device)
        if config.precision == "auto" and images < MIN_IMAGES_AT_ONCE:
            # Batch normalization of pooled maps divides the difference of two or three values by itself. Though networks compute it
            # in single precision, what they pool was rounded to bfloat16: at batch 2 the gradient's cosine to the one in single
            # precision is 0.91, and 0.8 at worst.
            self.dtype = torch.float32
        self.num_classes = num_classes = len(DATASETS[config.data.source.dataset].classes)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.round: Round | None = None
        self._interval = Interval()
        self._kept_round: tuple[int, str] | None = (
            None  # number and digest of the round that the checkpoint goes on with
        )
        torch.manual_seed(config.seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        else:
            keep_freed_memory()
        # A resumed run gets all weights from its checkpoint: ImageNet's need not be at hand any more.
        segmenter = build_segmenter(
            config.model, num_classes=num_classes, pretrained=not resumed and config.start is None
        )
        if config.start is not None and not resumed:
            segmenter.load_state_dict(load_start(config).state_dict())
        self.method: Method = METHODS[config.method.name](
            segmenter,
            config=config.method,
            loss=SegmentationLoss(class_weight=self._class_weight(), **config.loss.model_dump()),
            num_classes=num_classes,
        )
        self.method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distillation = self._distillation(segmenter)
        self.groups = self.method.parameter_groups()
        if distillation is not None and distillation.alignment is not None:
            # Beside the segmenter, which is shipped without it.
            self.method.add_module("alignment", distillation.alignment)
            self.groups["segmenter"] = [*self.groups["segmenter"], *distillation.alignment.parameters()]
        self.optimizers = {
            group: build_optimizer(config.discriminator_optimizer.settings, parameters)
            if group != "segmenter"
            else build_optimizer(config.optimizer, parameters, trunk=segmenter.trunk_parameters())
            for group, parameters in self.groups.items()
        }
        self.pruning = Pruning(
            config.pruning,
            self.method,
            segmenter,
            steps=config.steps,
            batch_size=config.batch_size,
            images=len(splits.labeled),
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.gradients = Gradients(
            config,
            self.method,
            self.groups,
            self.scaler,
            team=team,
            dtype=self.dtype,
            micro_batch=micro_batch,
            distillation=distillation,
        )
        self.seconds = 0.0
        self._round_steps = round_steps(self.method, steps=config.steps)
        self._needs_target = self.method.needs_target or (
            config.distillation is not None and config.distillation.images != "source"
        )
        self.feed = Feed(config, splits, team, needs_target=self._needs_target, rare=self._rare_classes())
        self._scorer = Scorer(config, splits, self.method, device=device, dtype=self.dtype)

    def _distillation(self, segmenter: Segmenter) -> Distillation | None:
        settings = self.config.distillation
        if settings is None:
            return None
        teacher = load_teacher(self.config)
        aligns = segmenter.feature_alignment if settings.learned == "features" else None
        alignment = None if aligns is None else aligns(segmenter, teacher)
        # Of the memory format of the images, which are the method's.
        for network in (teacher, alignment):
            if network is not None:
                network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Distillation(teacher, settings, alignment=alignment)

    @cached_property
    def _label_counts(self) -> NDArray[np.int64]:
        """Pixels of each class in the labels that the supervised stream is trained on, int64 [N, C]."""
        return class_counts(self.splits.labeled, num_classes=self.num_classes)

    def _class_weight(self) -> NDArray[np.float64] | None:
        weighting = self.config.loss.class_weights
        return None if weighting == "none" else class_weights(self._label_counts, weighting)

    def _rare_classes(self) -> RareClasses | None:
        sampling = self.config.data.sampling
        if sampling.name == "uniform":
            return None
        return RareClasses(self._label_counts, ratio=sampling.ratio, min_share=sampling.min_share)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Args:
            state: what `read_checkpoint` returned.

        Raises:
            WeightsError: it belongs to another configuration.
        """
        kept = restore_checkpoint(
            state, config=self.config, method=self.method, optimizers=self.optimizers, scaler=self.scaler
        )
        self.step, self.seconds, self.history = kept.step, kept.seconds, list(kept.history)
        self._interval, self._kept_round = kept.interval.to(self.device), kept.round
        self.pruning.restore(kept.masks, step=self.step)

    def save(self) -> None:
        """Write everything that the run needs to go on from here."""
        save_checkpoint(
            self.checkpoint,
            config=self.config,
            step=self.step,
            seconds=self.seconds,
            method=self.method,
            optimizers=self.optimizers,
            scaler=self.scaler,
            history=self.history,
            interval=self._interval,
            round=None if self.round is None else (self.round.number, self.round.digest),
            masks=self.pruning.state(),
        )
        # Maps that this checkpoint does not go on with are not needed any more.
        has_ended = self.step == self.config.steps
        forget_rounds(self.folder, keep=None if has_ended or self.round is None else self.round.number)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """End the loaders, which the first step opens, with the block."""
        with closing(self.feed):
            yield

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
        while self.step < until:
            self._enter_round()
            self._make_steps(min([until, *(start for start in self._round_steps if start > self.step)]), on_step)
        config, interval = self.config, self._interval
        metrics = {
            f"train/{name}": float(global_mean(value).item()) / interval.counts[name]
            for name, value in interval.sums.items()
        }
        if self.round is not None:
            metrics |= {f"train/{name}": share for name, share in self.round.shares.items()}
        metrics |= {f"train/sparsity_{part}": share for part, share in self.pruning.sparsity().items()}
        metrics["train/lr"] = config.optimizer.lr * self._factor(until - 1)
        metrics["train/seconds_per_step"] = interval.seconds / interval.steps
        streams = 1 + self._needs_target + self.method.needs_few_shot
        metrics["train/images_per_second"] = interval.steps * config.batch_size * streams / interval.seconds
        self._interval = Interval()
        if until == config.steps:
            self.pruning.finish()
            self._blend_statistics()
        return metrics

    def _factor(self, step: int) -> float:
        schedule = self.config.schedule
        horizon = schedule.horizon or self.config.steps
        return poly_factor(step, horizon=horizon, power=schedule.power, warmup_steps=schedule.warmup_steps)

    def _enter_round(self) -> None:
        """Begin the round of the present step, or find it where a resumed run is inside of it."""
        number = sum(start <= self.step for start in self._round_steps)
        if number == (0 if self.round is None else self.round.number):
            if not self.feed.is_open:
                self.feed.open(self.step, round=self.round)
            return
        self.feed.close()  # its loaders read the maps of the round before
        is_resumed = self._kept_round is not None and self._kept_round[0] == number
        began = time.perf_counter()
        if not is_resumed:
            # The checkpoint that is written now holds the sums of one rank.
            self._interval.sums = {name: global_mean(value) for name, value in self._interval.sums.items()}
            with torch.no_grad():
                self.method.begin_round(number)
        if self.team.rank == 0:
            if self._kept_round is not None and is_resumed:
                self.round = find_round(self.splits, self.folder, number=number, digest=self._kept_round[1])
            else:
                self.round = make_round(
                    self.method, self.splits, self.folder, number=number, device=self.device, dtype=self.dtype
                )
                self._spend(time.perf_counter() - began)
                # A run that is resumed before its next report goes on from here: it would need the maps of earlier rounds
                # otherwise.
                self.save()
        self.team.start_together()
        if self.team.rank > 0:
            self.round = open_round(self.splits, self.folder, number=number)
        self.feed.open(self.step, round=self.round)

    def _make_steps(self, until: int, on_step: OnStep | None) -> None:
        """Make updates up to step `until` within a round."""
        method, interval = self.method, self._interval
        method.train()
        first_bad = torch.full((), -1, device=self.device)
        began = last_shown = time.perf_counter()
        while self.step < until:
            self.pruning.advance(self.step)
            step_input = self.feed.on_device(self.feed.read(), step=self.step)
            losses, logs = self.gradients.compute(step_input)
            self.update(self._factor(self.step))
            method.after_step()
            total = torch.stack(list(losses.values())).sum()
            first_bad = torch.where((first_bad < 0) & ~torch.isfinite(total), self.step, first_bad)
            interval.add(logs)
            self.step += 1
            now = time.perf_counter()
            if self.team.rank == 0 and (now - last_shown > 1.0 or self.step == until):
                # One host synchronization per second: divergence is noticed and the progress bar is fed.
                last_shown = now
                self._check_finite(int(first_bad.item()))
                if on_step is not None:
                    on_step(self.step, float(losses["segmenter"].item()))
        self._spend(time.perf_counter() - began)

    def _spend(self, seconds: float) -> None:
        """Count time: a training pays for its updates and for the beginnings of its rounds."""
        self.seconds += seconds
        self._interval.seconds += seconds

    def _blend_statistics(self) -> None:
        """Move BatchNorm's statistics towards the target's, if the configuration asks for it; on every rank alike."""
        config, target = self.config, self.splits.target
        if config.target_batch_norm == 0:
            return
        size = max(config.batch_size, MIN_IMAGES_AT_ONCE)
        weights = batch_weights(config.target_batch_norm_schedule, images=len(target), batch_size=size)
        segmenter = self.method.segmenter
        trunk = str(MODELS[config.model.name].trunk_module)
        # Drawn as in training: in a video's order the images of a batch are alike, and their variance is too small.
        with closing(
            training_batches(
                target,
                recipe="none",
                size=(config.data.height, config.data.width),
                batch_size=size,
                seed=config.seed,
                steps=len(weights),
                pinned=self.device.type == "cuda",
            )
        ) as batches:
            images = (normalize(batch.image.to(self.device, non_blocking=True)) for batch in batches)
            with autocast(self.device, self.dtype):
                blend_statistics(
                    segmenter,
                    images,
                    share=config.target_batch_norm,
                    weights=weights,
                    images=len(target),
                    variance=config.target_batch_norm_variance,
                    part=segmenter.get_submodule(trunk) if config.target_batch_norm_layers == "trunk" else None,
                )

    def update(self, factor: float) -> None:
        """Move all groups by their gradients, and clear these; what is pruned stays zero.

        Args:
            factor: on the base learning rates.
        """
        self.pruning.clear_gradients()
        clip = self.config.optimizer.grad_clip
        if clip is not None:
            self.scaler.unscale_(self.optimizers["segmenter"])
            nn.utils.clip_grad_norm_(self.groups["segmenter"], clip)
        for optimizer in self.optimizers.values():
            set_learning_rate(optimizer, factor)
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        self.pruning.apply()

    def _check_finite(self, first_bad: int) -> None:
        if first_bad >= 0:
            raise TrainingDivergedError(
                f"the loss became NaN or infinite at step {first_bad} of {self.config.steps} "
                f"(lr {self.config.optimizer.lr:g}, {self.config.method.name}); lower the learning rate or warm up longer"
            )

    def score(self, *, final: bool) -> dict[str, float]:
        """Evaluate what is due at this report; the last one writes result and pictures too."""
        if not final:
            return self._scorer.interim()
        return self._scorer.final(self.folder, step=self.step, seconds=self.seconds, pruning=self.pruning.summary())
