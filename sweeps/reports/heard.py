"""A sweep as its driver tells of it, event by event."""

import time
from collections.abc import Iterable

from sweeps.file.spec import SweepSpec
from sweeps.labels import duration, settings_label
from sweeps.reports.marks import mark
from sweeps.reports.status import Progress
from sweeps.trial import TrialRecord, TrialState


class Heard:
    """What has been heard so far; who lets another thread read it holds a lock around both."""

    def __init__(self, spec: SweepSpec, trials: Iterable[TrialRecord]) -> None:
        """Begin with the trials that a resumed sweep has already."""
        self._trials = {trial.number: trial for trial in trials}
        self.progress = Progress(spec=spec, trials=self._trials.values())
        self.metric = spec.objectives[0].metric
        self.notes: list[str] = []
        self._started = time.monotonic()

    def hear(self, record: TrialRecord | None, message: str) -> None:
        """Take an event in; of those about the sweep as a whole the newest lines are kept."""
        if record is not None:
            self._trials[record.number] = record
        elif message:
            self.notes = [*self.notes[-2:], message]

    @property
    def running(self) -> list[TrialRecord]:
        """Running trials by number."""
        return [trial for _, trial in sorted(self._trials.items()) if trial.state is TrialState.RUNNING]

    def summary(self) -> str:
        """Return the state of the sweep in one line."""
        progress = self.progress
        parts = [f"{progress.done}/{progress.total} trials"]
        parts += [
            f"{progress.count(state)} {state}" for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
        ]
        infeasible = progress.count(TrialState.INFEASIBLE)
        if infeasible:
            parts.append(f"{infeasible} infeasible")
        steps = sum(trial.step for trial in progress.trials)
        parts += [f"{steps} steps", f"{duration(time.monotonic() - self._started)} elapsed"]
        left = progress.seconds_left
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def line(self, record: TrialRecord) -> str:
        """Return a trial in one line."""
        value = self.progress.value(record)
        shown = f" {self.metric} {value:.4f}" if value is not None else ""
        name = f" [{record.name}]" if record.name else ""
        settings = settings_label(record)
        return (
            f"trial {record.number}{mark(record)}{name} step {record.step}/{record.config['steps']}{shown} ({settings})"
        )
