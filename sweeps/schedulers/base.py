"""The contract of a scheduler: a plain decision over the values that trials had at the same steps.

The values follow from the ledger's points (`sweeps.schedulers.rungs`), so a decision is the same before and after a restart. Who
is compared with whom is decided in `sweeps.schedulers.rivals`; a scheduler only sees the numbers. Those that decide by several
objectives are in `sweeps.schedulers.fronts`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from segda.settings import Settings

Rungs = Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial that reported.

    Attributes:
        stop: whether it ends here.
        reason: why, in one line with values; empty when it goes on.
    """

    stop: bool
    reason: str = ""


CONTINUE = Decision(stop=False)


@dataclass(frozen=True)
class Comparison:
    """A trial at a rung, and those that it is held against.

    Attributes:
        step: the rung.
        own: the trial's values at the rungs up to this one, oldest first; the last one is a number.
        others: trial -> its values likewise, of those that have come to this rung; NaN where one had none.
        who: how many the others are, for people, e.g. `3 other trials`.
    """

    step: int
    own: Sequence[float]
    others: Mapping[int, Sequence[float]]
    who: str


class SchedulerConfig(Settings):
    """Settings of a scheduler; each scheduler extends it and gives `name` its own default."""

    name: str


class StoppingConfig(SchedulerConfig):
    """Settings of every scheduler that stops trials by one metric; `sweeps.schedulers.rivals` says when one is enough."""

    metric: str = Field(
        default="source/val/miou",
        description="reported metric that trials are compared by; larger is better; unset: the objective that training decides. "
        "With cost objectives only trials that cost no more are compared with",
    )


class Scheduler(ABC):
    """Says at which steps trials are compared; `MetricScheduler` and `FrontScheduler` say how.

    Attributes:
        Config: its settings, as the sweep file has them under `scheduler`.
        name: of the scheduler.
        steps: of a full training.
        rung_steps: the steps at which trials are compared, ascending; the last step is none, since nothing is left to save.
        assumption: how many trials `endings` takes to be stopped, for people.
    """

    Config: ClassVar[type[SchedulerConfig]]
    rung_steps: Sequence[int] = ()
    assumption: str = "every trial trains in full"

    def __init__(self, config: Any, *, steps: int, report_every: int) -> None:
        """Place the rungs.

        Args:
            config: of the class `Config`.
            steps: training steps of a full training.
            report_every: training steps between reports.

        Raises:
            LocatedError: the settings do not fit the training; relative to them.
        """
        del report_every
        self.name: str = config.name
        self.steps = steps

    def endings(self) -> dict[int, float]:
        """Return step -> share of the trials that end there, if what the rule says happens on average; the shares add up to 1."""
        return {self.steps: 1.0}


class MetricScheduler(Scheduler):
    """Decides by one metric.

    Attributes:
        metric: what trials are compared by, larger is better.
    """

    def __init__(self, config: Any, *, steps: int, report_every: int) -> None:
        """Place the rungs; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        self.metric: str = config.metric

    @abstractmethod
    def compare(self, comparison: Comparison) -> Decision:
        """Decide on a trial at a rung."""

    def decide(
        self, step: int, value: float, rungs: Rungs, *, number: int, rivals: Collection[int] | None = None
    ) -> Decision:
        """Decide on a trial that reported.

        Args:
            step: training step of the report.
            value: the metric that trials are compared by.
            rungs: rung -> trial number -> value, of the rungs up to this step at least; later ones are passed over.
            number: the trial's own.
            rivals: the trials to compare with (`sweeps.schedulers.rivals.rivals`); None: all.

        Returns:
            Whether to stop. NaN stops a trial at any step: it does not train back to a number.
        """
        if math.isnan(value):
            return Decision(stop=True, reason=f"its value at step {step} is not a number")
        if step not in self.rung_steps:
            return CONTINUE
        past = [rungs[rung] for rung in sorted(rungs) if rung < step]
        others = {
            other: [*(values[other] for values in past if other in values), newest]
            for other, newest in rungs.get(step, {}).items()
            if other != number and (rivals is None or other in rivals)
        }
        kind = "other" if rivals is None else "comparable"
        who = f"{len(others)} {kind} trial{'' if len(others) == 1 else 's'}"
        own = [*(values[number] for values in past if number in values), value]
        return self.compare(Comparison(step, own, others, who))
