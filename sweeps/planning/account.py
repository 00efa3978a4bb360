"""What a sweep has spent, beside what was planned."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from sweeps.checks.makers import stored_spec
from sweeps.file.prices import Prices, prices_of
from sweeps.file.spec import SweepSpec
from sweeps.labels import duration
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import RESUMED, RETRIED, Allotment, Event
from sweeps.planning.estimate import Estimate, Span, shown_span
from sweeps.planning.machines import stated
from sweeps.planning.packing import allotted
from sweeps.planning.plan import saved_estimate
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class Account:
    """What a sweep has spent.

    Attributes:
        states: how many trials are in each state that occurs.
        reused: trials whose result was taken from elsewhere instead of being computed.
        steps: training steps of all trials, without those that were lost and made again.
        worker_seconds: time that workers had trials, summed.
        gpu_seconds: time that trials occupied GPUs, summed over GPUs.
        failed_seconds: worker time of trials that failed for good.
        retried_seconds: worker time after the last report of attempts that failed and were made again; a bound from above, since
            the wait for a new worker counts too.
        retries: how many such attempts there were.
        drivers: how many drivers the sweep has had.
        wall_seconds: time that drivers ran.
        concurrency: trials that may run at the same time.
        planned: the estimate before the sweep, if there was one.
        prices: what an hour costs, if the file says so.
        paid: what money was spent on -> how much; they add up to all that was spent. Empty without prices.
    """

    states: Mapping[TrialState, int]
    reused: int
    steps: int
    worker_seconds: float
    gpu_seconds: float
    failed_seconds: float
    retried_seconds: float
    retries: int
    drivers: int
    wall_seconds: float
    concurrency: int
    planned: Estimate | None = None
    prices: Prices | None = None
    paid: Mapping[str, float] = field(default_factory=dict)

    @property
    def cost(self) -> float | None:
        """Money spent so far; None without prices."""
        return None if self.prices is None else sum(self.paid.values())

    @property
    def busy_share(self) -> float:
        """Share of the places for trials that were occupied while drivers ran, in [0, 1]."""
        room = self.wall_seconds * self.concurrency
        return min(1.0, self.worker_seconds / room) if room > 0 else 0.0

    def rows(self) -> list[tuple[str, str]]:
        """Return the account as (what, how much), with the plan's figures where there are any."""
        trials = ", ".join(f"{count} {state}" for state, count in self.states.items()) or "none yet"
        rows = [
            ("trials", trials + self._plan(lambda plan: Span(plan.trials, plan.trials), _number)),
            ("training steps", f"{self.steps:,}" + self._plan(lambda plan: plan.steps, _number)),
            ("worker time", duration(self.worker_seconds) + self._plan(lambda plan: plan.worker_seconds, duration)),
            ("wall time", duration(self.wall_seconds) + self._plan(lambda plan: plan.wall_seconds, duration)),
            ("workers busy", f"{self.busy_share:.0%} of {self.concurrency}"),
        ]
        if self.gpu_seconds:
            rows.append(("GPU hours", _hours(self.gpu_seconds) + self._plan(lambda plan: plan.gpu_seconds, _hours)))
        if self.prices is not None:
            spent = sum(self.paid.values())
            rows.append(("cost", self.prices.text(spent) + self._planned_cost(self.prices)))
            shares = [f"{what} {amount:,.2f} ({amount / spent:.0%})" for what, amount in self.paid.items() if amount]
            rows += [("paid for", ", ".join(shares))] if shares else []
        if self.reused:
            rows.append(("taken from earlier results", f"{self.reused} trials"))
        if self.failed_seconds:
            rows.append(("spent on trials that failed", self._part(self.failed_seconds)))
        if self.retries:
            attempts = f"{self.retries} attempt{'' if self.retries == 1 else 's'}"
            rows.append(("lost with workers", f"at most {self._part(self.retried_seconds)}, {attempts} made again"))
        if self.drivers > 1:
            rows.append(("drivers", str(self.drivers)))
        return rows

    def _plan(self, figure: Callable[[Estimate], Span], show: Callable[[float], str]) -> str:
        return "" if self.planned is None else f" (planned: {shown_span(figure(self.planned), show)})"

    def _planned_cost(self, prices: Prices) -> str:
        if self.planned is None or self.planned.cost is None:
            return ""
        return f" (planned: {shown_span(self.planned.cost, prices.text)})"

    def _part(self, seconds: float) -> str:
        return (
            f"{duration(seconds)} ({seconds / self.worker_seconds:.1%})" if self.worker_seconds else duration(seconds)
        )


def account(
    spec: SweepSpec,
    records: Sequence[TrialRecord],
    events: Sequence[Event],
    *,
    reported: Mapping[int, Sequence[float]] = MappingProxyType({}),
    allotment: Allotment | None = None,
    wall_seconds: float | None = None,
    planned: Estimate | None = None,
) -> Account:
    """Add up what a sweep has spent.

    Args:
        spec: the sweep.
        records: its trials.
        events: what happened to it.
        reported: trial that lost attempts -> when it reported, seconds since 1970; without it a lost attempt is taken to have lost
            everything since the trial began or was lost before.
        allotment: what its trials got; unset: what its file says, where `gpus: auto` counts as a whole GPU per trial.
        wall_seconds: time that its drivers ran; unset: from the first trial's begin to the last one's end, pauses included.
        planned: the estimate before it.
    """
    given = allotment or stated(spec)
    worker_seconds = sum(record.seconds for record in records)
    retried = [event for event in events if event.kind == RETRIED and event.number is not None]
    states = Counter(record.state for record in records)
    lost = _lost_seconds(records, retried, reported)
    prices = prices_of(spec, gpus=given.gpus)
    return Account(
        states={state: states[state] for state in TrialState if states[state]},
        reused=sum(record.reused is not None for record in records),
        steps=sum(record.step for record in records if record.reused is None),
        worker_seconds=worker_seconds,
        gpu_seconds=worker_seconds * given.gpus,
        failed_seconds=sum(record.seconds for record in records if record.state is TrialState.FAILED),
        retried_seconds=sum(lost.values()),
        retries=len(retried),
        drivers=1 + sum(event.kind == RESUMED for event in events),
        wall_seconds=_span_of(records) if wall_seconds is None else wall_seconds,
        concurrency=given.concurrency,
        planned=planned,
        prices=prices,
        paid={} if prices is None else _paid(records, lost, prices),
    )


def account_of(ledger: Ledger, store: Store, name: str, *, trials: Sequence[TrialRecord]) -> Account:
    """Add up what a sweep of a ledger has spent.

    Args:
        ledger: where the sweep is.
        store: where its plan lies.
        name: the sweep.
        trials: its records.

    Raises:
        ConfigError: there is no sweep of that name.
    """
    sweep = ledger.sweep(name)
    spec = stored_spec(sweep)
    return account(
        spec,
        trials,
        ledger.events(name),
        reported=ledger.report_times(name, RETRIED),
        allotment=allotted(spec, sweep.info),
        wall_seconds=sweep.seconds or None,
        planned=saved_estimate(store, name),
    )


def _lost_seconds(
    records: Sequence[TrialRecord], retried: Sequence[Event], reported: Mapping[int, Sequence[float]]
) -> dict[int, float]:
    """Return trial -> seconds of its attempts that failed and were made again, after their last reports."""
    known = {record.number: record for record in records}
    lost_at: dict[int, list[Event]] = {}
    for event in retried:
        if event.number in known:
            lost_at.setdefault(event.number, []).append(event)
    found = {}
    for number, events in lost_at.items():
        record = known[number]
        # Whatever came last before an attempt was lost is the beginning of what was lost.
        mine = [record.started or record.created, *reported.get(number, ())]
        lost = 0.0
        for event in sorted(events, key=lambda event: event.timestamp):
            before = [mark for mark in mine if mark <= event.timestamp]
            lost += event.timestamp - max(before, default=event.timestamp)
            mine.append(event.timestamp)
        found[number] = min(lost, record.seconds)
    return found


_PURPOSES = {
    TrialState.COMPLETE: "trials in full",
    TrialState.PRUNED: "trials stopped early",
    TrialState.FAILED: "trials that failed",
}


def _paid(records: Sequence[TrialRecord], lost: Mapping[int, float], prices: Prices) -> dict[str, float]:
    """Return what money was spent on -> how much."""
    kinds = {TrialKind.REFERENCE: "references", TrialKind.REPLICATE: "replicates"}
    paid = dict.fromkeys((*_PURPOSES.values(), "trials under way", *kinds.values(), "attempts made again"), 0.0)
    for record in records:
        gone = lost.get(record.number, 0.0)
        what = kinds.get(record.kind) or _PURPOSES.get(record.state, "trials under way")
        paid[what] += prices.paid(record.seconds - gone, record.device)
        paid["attempts made again"] += prices.paid(gone, record.device)
    return paid


def _span_of(records: Sequence[TrialRecord]) -> float:
    begun = [record.started for record in records if record.started is not None]
    ended = [record.finished for record in records if record.finished is not None and record.started is not None]
    return max(0.0, max(ended) - min(begun)) if begun and ended else 0.0


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"
