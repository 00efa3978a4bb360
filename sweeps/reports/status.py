"""How far a sweep is, from its trials; with its driver, from the ledger alone: on any machine that reaches it, at any time."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from sweeps.file.outline import Outline, outline_of
from sweeps.file.prices import Prices, prices_of
from sweeps.labels import ago
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import is_alive, is_free, unfinished
from sweeps.ledger.records import DELETE, OUTAGE, OUTAGE_OVER, RESUMED, STALLED, SweepRecord, SweepState
from sweeps.planning.counts import planned_trials
from sweeps.suggestions import suggest
from sweeps.trial import TrialKind, TrialRecord, TrialState

if TYPE_CHECKING:
    from sweeps.file.spec import SweepSpec  # imports PyTorch

MOST_ROWS = 200  # of a table of trials that people read
EVERY_TRIAL = 10**9  # rows


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the trials of a sweep are.

    Attributes:
        spec: the sweep's file.
        trials: its trials; may be a view of what changes meanwhile.
    """

    spec: "SweepSpec | Outline"
    trials: Collection[TrialRecord]

    @cached_property
    def total(self) -> int:
        """Trials that the sweep will have trained at its end."""
        return planned_trials(self.spec).total

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in any of some states."""
        return sum(trial.state in states for trial in self.trials)

    @property
    def done(self) -> int:
        """How many trials have ended with a place of the budget: not those that the machines failed."""
        ended = self.count(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
        return ended - sum(trial.is_set_aside for trial in self.trials)

    def value(self, trial: TrialRecord) -> float | None:
        """Return the first objective of a trial so far, if it is known."""
        metric = self.spec.objectives[0].metric
        return trial.metrics.get(metric, trial.profile.get(metric))

    @property
    def best(self) -> TrialRecord | None:
        """The fully trained trial of the search with the best value of the first objective."""
        sign = 1.0 if self.spec.objectives[0].direction == "maximize" else -1.0
        scored = [
            (sign * value, trial)
            for trial in self.trials
            if trial.kind is TrialKind.SEARCH
            and trial.state is TrialState.COMPLETE
            and (value := self.value(trial)) is not None
        ]
        return max(scored, key=lambda item: item[0], default=(0.0, None))[1]

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until all trials have ended; None if no trial has come far enough.

        From the worker time per step so far and the mean steps of ended trials: pruning makes trials cheaper than planned.
        """
        trained = [trial for trial in self.trials if trial.step and trial.reused is None]
        steps = sum(trial.step for trial in trained)
        seconds = sum(trial.seconds for trial in trained)
        if not steps or not seconds:
            return None
        ended = [trial.step for trial in trained if trial.state.is_finished]
        open_trials = [trial for trial in self.trials if not trial.state.is_finished]
        planned = max((int(trial.config["steps"]) for trial in open_trials), default=0)
        mean = sum(ended) / len(ended) if ended else float(planned)
        fresh = max(0, self.total - self.done - len(open_trials))
        remaining = fresh * mean + sum(max(0.0, mean - trial.step) for trial in open_trials)
        return remaining * seconds / steps / max(1, self.count(TrialState.RUNNING))


@dataclass(frozen=True, kw_only=True)
class DriverStatus:
    """A sweep's driver at one moment.

    Attributes:
        record: the sweep.
        trouble: why nothing works now, or why the sweep stalled, as its driver last said; None: something works.
        now: the moment, seconds since 1970.
    """

    record: SweepRecord
    trouble: str | None = None
    now: float = 0.0

    @property
    def is_driven(self) -> bool:
        """Whether a driver works on the sweep."""
        return is_alive(self.record.driver, self.record.driver_seen)

    @property
    def has_ended(self) -> bool:
        """Whether its driver has said that it ended; one that died is expected back."""
        return not self.is_driven and self.record.state is not None and self.record.state.has_ended

    @property
    def state(self) -> str:
        """State of the sweep and its driver, and what to do about it, for people."""
        return self.condition if self.remedy is None else f"{self.condition}; {self.remedy}"

    @property
    def remedy(self) -> str | None:
        """The command that lets a sweep go on which is not done and which nothing works on; None: there is nothing to do."""
        record = self.record
        chore = unfinished(record)
        if self.is_driven or (record.state is SweepState.FINISHED and chore is None):
            return None
        return f"finish {chore}" if chore is not None else f"go on with {suggest('resume', record.name)}"

    @property
    def condition(self) -> str:
        """State of the sweep and its driver, for people."""
        record = self.record
        if self.is_driven and record.driver is not None and record.driver_seen is not None:
            host, pid, _ = record.driver.rsplit(":", 2)
            doing = "stopping" if record.stop_requested is not None else "running"
            return f"{doing}, driven by process {pid} on {host}, last seen {ago(self.now - record.driver_seen)}"
        if record.info.pending:
            return "half deleted" if record.info.pending[0] == DELETE else f"half renamed to {record.info.pending[1]}"
        if record.state is not None and record.state.has_ended:
            return record.state.label
        if record.state is None and record.driver is None:
            return "not started"
        since = "" if record.driver_seen is None else f", last seen {ago(self.now - record.driver_seen)}"
        known = "" if is_free(record.driver) else ", as far as clocks tell"
        return f"stopped{known}: its driver is gone{since}"

    @property
    def seconds(self) -> float:
        """Wall-clock time that the sweep has taken over all its drivers, as of the driver's last sign of life."""
        return self.record.seconds


@dataclass(frozen=True, kw_only=True)
class SweepStatus(Progress, DriverStatus):
    """A sweep and its driver at one moment.

    Attributes:
        trials: its trials; of those that have ended and are not shown only what `Ledger.glances` has.
        reported: running trial -> when it last reported, seconds since 1970.
        shown: numbers of the trials to show.
    """

    reported: Mapping[int, float] = field(default_factory=dict)
    shown: Collection[int] = ()

    @property
    def prices(self) -> Prices | None:
        """What an hour of a trial costs; None if the sweep file does not say."""
        allotment = self.record.info.allotment
        return prices_of(self.spec, gpus=self.spec.resources.num_gpus if allotment is None else allotment.gpus)

    @property
    def cost(self) -> float | None:
        """Money that trials have cost, as far as the ledger has heard; None without prices."""
        prices = self.prices
        return None if prices is None else sum(prices.paid(trial.seconds, trial.device) for trial in self.trials)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end, at most what the budget's hours leave; None if nothing works on the sweep."""
        left = super().seconds_left if self.is_driven else None
        hours = self.spec.budget.hours
        return left if left is None or hours is None else min(left, max(0.0, hours * 3600 - self.seconds))


def listed(trials: Iterable[TrialRecord], *, rows: int) -> list[int]:
    """Return the numbers of the trials that a table of so many rows shows: the open ones first, then the last that ended."""
    recent = sorted(trials, key=lambda trial: (trial.state.is_finished, -(trial.finished or 0.0), -trial.number))
    return sorted(trial.number for trial in recent[:rows])


def read_status(ledger: Ledger, name: str, *, rows: int = MOST_ROWS) -> SweepStatus:
    """Read how far a sweep is.

    Args:
        ledger: where the sweep is.
        name: its name.
        rows: most trials to show.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
    """
    record = ledger.sweep(name)
    spec = outline_of(
        record.spec, where=f"sweep {name} in the ledger, which another version of this program may have written"
    )
    glances = ledger.glances(name, metric=spec.objectives[0].metric)
    best = Progress(spec=spec, trials=glances).best
    shown = listed(glances, rows=rows)
    wanted = {*shown, *(trial.number for trial in glances if not trial.state.is_finished)}
    wanted |= set() if best is None else {best.number}
    whole = {trial.number: trial for trial in ledger.trials(name, wanted)}
    trials = [whole.get(trial.number, trial) for trial in glances]
    return SweepStatus(
        record=record,
        spec=spec,
        trials=trials,
        reported=ledger.last_reports(name, [trial.number for trial in trials if trial.state is TrialState.RUNNING]),
        shown=shown,
        trouble=trouble_of(ledger, name),
        now=time.time(),
    )


def read_overview(ledger: Ledger) -> list[tuple[DriverStatus, dict[TrialState, int]]]:
    """Read how far all sweeps of a ledger are: each with how many trials it has in each state.

    Args:
        ledger: where they are.
    """
    counts, now = ledger.counts(), time.time()
    return [
        (DriverStatus(record=record, trouble=trouble_of(ledger, record.name), now=now), counts.get(record.name, {}))
        for record in ledger.sweeps()
    ]


def trouble_of(ledger: Ledger, name: str) -> str | None:
    """Return why nothing works on a sweep now, as its driver last said; None: something does, for all that is known."""
    # Whatever ends an outage is the newer event.
    last = ledger.last_event(name, (OUTAGE, STALLED, OUTAGE_OVER, RESUMED))
    return last.message if last is not None and last.kind in (OUTAGE, STALLED) else None
