"""How many weights are zero at which step of a training. One class each; a new one is a class and a line in `PRUNING_SCHEDULES`.

Levels only rise: what is zero stays zero.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from segda.catalog import Catalog, subclass_of
from segda.settings import Settings
from segda.tunable import Choice, Range

NO_PRUNING = "none"  # what a configuration that names no schedule means


class PruningScheduleConfig(Settings):
    """Settings of one schedule; each schedule extends it and gives `name` its own default."""

    name: str

    def highest(self) -> float:
        """Return the highest level that the schedule can ask for, in [0, 1]; 1 unless a schedule knows better."""
        return 1.0


class PruningSchedule(ABC):
    """A rule for the share of weights that are zero.

    Attributes:
        Config: its settings.
    """

    Config: ClassVar[type[PruningScheduleConfig]]

    @staticmethod
    @abstractmethod
    def level(settings: Any, *, step: int, steps: int, epoch: int) -> float:
        """Return the share of the weights that are zero in a step; it never falls from one step to the next.

        A function of these numbers alone, so that a training that is resumed goes on with the same level.

        Args:
            settings: an instance of `Config`.
            step: updates made before it.
            steps: updates of the training.
            epoch: how often all labelled training images have passed before it, from 0.

        Returns:
            A number in [0, 1].
        """


class NoPruningConfig(PruningScheduleConfig):
    """Settings of `NoPruning`."""

    name: Literal["none"] = "none"

    def highest(self) -> float:
        """Return 0."""
        return 0.0


class NoPruning(PruningSchedule):
    """All weights stay."""

    Config: ClassVar[type[PruningScheduleConfig]] = NoPruningConfig

    @staticmethod
    def level(settings: NoPruningConfig, *, step: int, steps: int, epoch: int) -> float:
        """Return 0; see `PruningSchedule.level`."""
        return 0.0


class FixedConfig(PruningScheduleConfig):
    """Settings of `Fixed`."""

    name: Literal["fixed"] = "fixed"
    sparsity: Annotated[float, Range(0.1, 0.8)] = Field(
        0.2, gt=0, lt=1, description="share of the weights that are zero (adaptation report: 0.2)"
    )

    def highest(self) -> float:
        """Return the level."""
        return self.sparsity


class Fixed(PruningSchedule):
    """The same level from the first step to the last, as the adaptation report's "fixed pruning".

    Its code ranks the weights anew at every epoch and forgets the masks in between, so that a step later nothing is zero any
    more. Here those that are the smallest at the beginning, of pretrained or of random weights, are zero from then on.
    """

    Config: ClassVar[type[PruningScheduleConfig]] = FixedConfig

    @staticmethod
    def level(settings: FixedConfig, *, step: int, steps: int, epoch: int) -> float:
        """Return the level; see `PruningSchedule.level`."""
        return settings.sparsity


class IncrementalConfig(PruningScheduleConfig):
    """Settings of `Incremental`."""

    name: Literal["incremental"] = "incremental"
    per_epoch: Annotated[float, Range(0.001, 0.1, log=True)] = Field(
        0.005,
        gt=0,
        lt=1,
        description="what each epoch adds to the level (adaptation report: 0.005; its code: 0.05, beyond 1 after 20)",
    )
    largest: Annotated[float, Range(0.3, 0.9)] = Field(
        0.9, gt=0, lt=1, description="level at which it stops (adaptation report: after 100 epochs, at 0.495)"
    )

    def highest(self) -> float:
        """Return the level at which it stops; shorter trainings do not get there."""
        return self.largest


class Incremental(PruningSchedule):
    """level = min(per_epoch * epoch, largest), as the adaptation report's "incremental pruning".

    An epoch is one pass over the labelled training images (with 305 of them and batches of 4, 76 steps), the first one is number
    0, and the product is the level that there is, not what is pruned of what is left.
    """

    Config: ClassVar[type[PruningScheduleConfig]] = IncrementalConfig

    @staticmethod
    def level(settings: IncrementalConfig, *, step: int, steps: int, epoch: int) -> float:
        """Return the level; see `PruningSchedule.level`."""
        return min(settings.per_epoch * epoch, settings.largest)


class CubicConfig(PruningScheduleConfig):
    """Settings of `Cubic`."""

    name: Literal["cubic"] = "cubic"
    start: float = Field(0.0, ge=0, lt=1, description="level at `begin`; before it nothing is zero")
    end: Annotated[float, Range(0.2, 0.9)] = Field(0.5, gt=0, lt=1, description="level from `until` on")
    begin: Annotated[float, Range(0.0, 0.4)] = Field(
        0.0, ge=0, lt=1, description="share of the training that precedes the first zeros"
    )
    until: Annotated[float, Range(0.5, 0.9)] = Field(
        0.75, gt=0, le=1, description="share of the training after which the level stays; the rest is for recovery"
    )
    updates: Annotated[int, Choice(10, 20, 50)] = Field(
        20, ge=1, le=10_000, description="how often the level rises in between (Zhu and Gupta: every 100 to 1000 steps)"
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"the level never falls: end {self.end:g} must not be smaller than start {self.start:g}")
        if self.until <= self.begin:
            raise ValueError(f"until {self.until:g} must be greater than begin {self.begin:g}")
        return self

    def highest(self) -> float:
        """Return the level at the end."""
        return self.end


class Cubic(PruningSchedule):
    """level_t = end + (start - end) * (1 - (t - t0) / (T - t0))^3, in `updates` equal intervals of t between t0 and T.

    t0 and T are the steps at which the shares `begin` and `until` of the training have passed. Many weights go early, when there
    are many that do not matter, and few later.

    Source: Zhu and Gupta, To prune, or not to prune, ICLR 2018 workshop, arXiv:1710.01878, eq. 1.
    """

    Config: ClassVar[type[PruningScheduleConfig]] = CubicConfig

    @staticmethod
    def level(settings: CubicConfig, *, step: int, steps: int, epoch: int) -> float:
        """Return the level; see `PruningSchedule.level`."""
        first, last = round(settings.begin * steps), round(settings.until * steps)
        if step < first:
            return 0.0
        passed = 1.0 if step >= last else (step - first) * settings.updates // (last - first) / settings.updates
        return settings.end + (settings.start - settings.end) * (1 - passed) ** 3


PRUNING_SCHEDULES: Catalog[type[PruningSchedule]] = Catalog(
    "pruning schedule",
    group="segda.pruning_schedules",
    built_in={"none": NoPruning, "fixed": Fixed, "incremental": Incremental, "cubic": Cubic},
    check=subclass_of(PruningSchedule, config=PruningScheduleConfig),
)
