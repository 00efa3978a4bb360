"""What the steps of a run are fed with: images and labels from three streams of draws, put together on the device."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import torch
from torch import Tensor

from segda.config import TrainConfig
from segda.datasets.cache import DecodedSplit
from segda.datasets.external_labels import confidences_of_levels
from segda.datasets.loaders import UNCLAIMED, RawBatch, Styling, normalize, training_batches
from segda.datasets.sampling import RareClasses
from segda.draws import Draws
from segda.methods import StepInput
from segda.rounds import FULL_WEIGHT, Round
from segda.splits import Splits
from segda.team import Team
from segda.transforms import RECIPES
from segda.transforms.styles import build_style
from segda.types import IGNORE_INDEX, LabeledBatch, PseudoLabel, UnlabeledBatch

_LABELED, _TARGET, _FEW_SHOT = range(3)
Raw = tuple[RawBatch | None, RawBatch | None, RawBatch | None]  # labeled, target, few-shot; None where there is none


class Feed:
    """The loaders of one of the processes that train. Closing it ends their threads and processes.

    Attributes:
        is_open: whether there is something to read.
    """

    def __init__(
        self, config: TrainConfig, splits: Splits, team: Team, *, needs_target: bool, rare: RareClasses | None
    ) -> None:
        """Keep what is read; nothing is opened yet.

        Args:
            config: the run.
            splits: its decoded images.
            team: the processes that share each batch.
            needs_target: whether there are target images.
            rare: draws the labelled images; None: all equally often.
        """
        self._config = config
        self._splits = splits
        self._team = team
        self._needs_target = needs_target
        self._pads = RECIPES[config.data.augmentation].pads
        self._rare = rare
        external = splits.external
        self._target_split = splits.target if external is None else external.on(splits.target)
        # Which confidence a level of external labels is, and what each class must reach to be as confident as on average.
        self._confidences = torch.from_numpy(confidences_of_levels()).to(team.device)
        means = None if external is None else external.class_confidences()
        self._class_confidence = None if means is None else torch.from_numpy(means).to(team.device)
        self._loaders = ExitStack()
        self._round: Round | None = None
        self._raw: Iterator[Raw] = iter(())
        self.is_open = False

    def open(self, step: int, *, round: Round | None) -> None:
        """Open the loaders from a step to the end of the run, in the place of earlier ones.

        Args:
            step: number of updates made.
            round: that goes on, if one does: its pseudo-labels come with the target images, and it says which images are drawn.
        """
        self.close()
        self._round = round
        target, drawn_target, drawn_source = self._target_split, None, None
        if round is not None:
            target, drawn_target, drawn_source = round.target, round.drawn_target, round.drawn_source
        # Three independent streams of draws.
        self._raw = zip(
            self._stream(self._splits.labeled, step, stream=_LABELED, drawn=drawn_source),
            self._stream(target if self._needs_target else None, step, stream=_TARGET, drawn=drawn_target),
            self._stream(self._splits.few_shot, step, stream=_FEW_SHOT),
            strict=False,
        )
        self.is_open = True

    def close(self) -> None:
        """End the loaders."""
        self.is_open = False
        self._loaders.close()

    def read(self) -> Raw:
        """Return the images of the next step as the loaders have them."""
        return next(self._raw)

    def on_device(self, raw: Raw, *, step: int) -> StepInput:
        """Return what a method is given for a step.

        Args:
            raw: of `read`.
            step: number of updates made.
        """
        labeled, target, few_shot = raw
        assert labeled is not None
        own_part = self._config.batch_size // self._team.size
        return StepInput(
            labeled=self._labeled(labeled),
            target=self._target(target),
            few_shot=None if few_shot is None else self._labeled(few_shot),
            progress=step / self._config.steps,
            draws=Draws(seed=self._config.seed, step=step, first=self._team.rank * own_part),
            round=0 if self._round is None else self._round.number,
        )

    def _stream(
        self, split: DecodedSplit | None, step: int, *, stream: int, drawn: Sequence[int] | None = None
    ) -> Iterator[RawBatch | None]:
        if split is None:
            return itertools.repeat(None)
        data = self._config.data
        style = build_style(data.style) if stream == _LABELED else None
        batches = training_batches(
            split,
            recipe=data.augmentation,
            size=data.train_size,
            batch_size=self._config.batch_size,
            seed=3 * self._config.seed + stream,
            start_step=step,
            steps=self._config.steps - step,
            workers=data.workers,
            rank=self._team.rank,
            ranks=self._team.size,
            pinned=self._team.device.type == "cuda",
            marks_padding=stream == _TARGET and self._pads,
            drawn=drawn,
            rare=self._rare if stream == _LABELED else None,
            styling=None if style is None else Styling(style, self._splits.target),
        )
        return self._loaders.enter_context(closing(batches))

    def _image(self, batch: RawBatch) -> Tensor:
        return normalize(batch.image.to(self._team.device, non_blocking=True))

    def _label(self, batch: RawBatch) -> Tensor:
        assert batch.label is not None
        return batch.label.to(self._team.device, non_blocking=True).long()

    def _labeled(self, batch: RawBatch) -> LabeledBatch:
        return LabeledBatch(self._image(batch), self._label(batch))

    def _target(self, batch: RawBatch | None) -> UnlabeledBatch:
        if batch is None:
            return UnlabeledBatch(torch.empty(0, 3, *self._config.data.train_size, device=self._team.device))
        label = None if batch.label is None else self._label(batch)
        valid = None
        if label is not None and self._pads:
            valid = label != IGNORE_INDEX
            label = label.masked_fill(label == UNCLAIMED, IGNORE_INDEX)
        if label is None or (self._splits.external if self._round is None else self._round.target.labels) is None:
            return UnlabeledBatch(self._image(batch), valid=valid)
        weight = None
        if batch.weight is not None:
            stored = batch.weight.to(self._team.device, non_blocking=True)
            weight = stored.float() / FULL_WEIGHT if self._round is not None else self._confidences[stored.long()]
        class_confidence = self._class_confidence if self._round is None else None
        return UnlabeledBatch(self._image(batch), PseudoLabel(label, weight, class_confidence), valid)
