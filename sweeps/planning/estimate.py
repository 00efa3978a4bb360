"""What a sweep will take: measured on one short training of everything that it can do, and multiplied out.

The bounds of an estimate are two ways that early stopping can go. Upper: every trial trains in full. Lower: it stops as many as
its rule says on average (ASHA: one in `reduction_factor` goes on at each rung; median: half stop at the first comparison). The
truth lies between: the first trials have nobody to be compared with, and good ones go on. A trial of
the search is taken to cost the mean of what was tried, a finalist's repetition too; a reference costs what it cost when it was
tried.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, Self

from segda.config import TrainConfig
from segda.errors import ConfigError
from sweeps.file.prices import PROCESSOR, gpu_text, prices_of
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Allotment
from sweeps.planning.canary import Costs
from sweeps.planning.counts import planned_trials
from sweeps.planning.coverage import Case
from sweeps.planning.machines import stated


class Span(NamedTuple):
    """From the least to the most."""

    low: float
    high: float


@dataclass(frozen=True)
class Tried:
    """A configuration and what became of it.

    Attributes:
        case: the configuration.
        costs: what it costs; None if it failed.
        error: why it failed, in one line.
        doubts: what others did on the machine meanwhile, one line each.
    """

    case: Case
    costs: Costs | None
    error: str | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take.

    Attributes:
        trials: of the search, references and repetitions of finalists.
        concurrency: trials at the same time, as far as they fit.
        gpus_per_trial: GPUs that each occupies.
        steps: training steps of all trials.
        worker_seconds: time that trials occupy workers, summed.
        wall_seconds: time until the sweep is done.
        gpu_seconds: time that trials occupy GPUs, summed over GPUs.
        disk_bytes: the most that is kept of all trials.
        cost: money, by the prices of the sweep file; None if it has none.
    """

    trials: int
    concurrency: int
    gpus_per_trial: float
    steps: Span
    worker_seconds: Span
    wall_seconds: Span
    gpu_seconds: Span
    disk_bytes: int
    cost: Span | None = None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`."""
        values: dict[str, Any] = {
            key: Span(*value) if isinstance(value, list | tuple) else value for key, value in plain.items()
        }
        return cls(**values)


def shown_span(span: Span, show: Callable[[float], str]) -> str:
    """Return a span for people.

    Example:
        >>> shown_span(Span(1, 2), str), shown_span(Span(2, 2), str)
        ('1 to 2', '2')
    """
    low, high = show(span.low), show(span.high)
    return low if low == high else f"{low} to {high}"


def estimate(
    spec: SweepSpec, tried: Sequence[Tried], *, allotment: Allotment | None = None, slots: int | None = None
) -> Estimate:
    """Multiply out.

    Args:
        spec: the sweep.
        tried: what its configurations cost; failed ones are left out.
        allotment: what its trials get; unset: what its file says.
        slots: trials that fit on the machines at the same time; unset: no limit but that of the allotment.

    Raises:
        ConfigError: every configuration failed.
    """
    searched = [item.costs for item in tried if item.costs is not None and not item.case.is_reference]
    references = {item.case.label: item.costs for item in tried if item.costs is not None and item.case.is_reference}
    if not searched:
        raise ConfigError(f"nothing can be estimated: all {len(tried)} branches fail")
    config = spec.train_config(tried[0].case.params, seed=spec.first_seed)
    counts = planned_trials(spec)
    full = fmean(trial_seconds(costs, config, config.steps) for costs in searched)
    endings = spec.build_scheduler().endings()
    pruned = fmean(
        sum(share * trial_seconds(costs, config, steps) for steps, share in endings.items()) for costs in searched
    )
    pruned_steps = sum(share * steps for steps, share in endings.items())
    fixed = counts.replicates * full + sum(trial_seconds(costs, config, config.steps) for costs in references.values())
    trials = counts.total
    worker = Span(counts.search * pruned + fixed, counts.search * full + fixed)
    given = allotment or stated(spec)
    gpus = given.gpus
    concurrency = max(1, min(given.concurrency, slots or given.concurrency, trials))
    prices = prices_of(spec, gpus=gpus)
    device = gpu_text(searched[0].device) if gpus else PROCESSOR
    # However many run at once, the longest one takes its time.
    longest = max(trial_seconds(costs, config, config.steps) for costs in (*searched, *references.values()))
    return Estimate(
        trials=trials,
        concurrency=concurrency,
        gpus_per_trial=gpus,
        steps=Span(
            round(counts.search * pruned_steps) + (trials - counts.search) * config.steps,
            trials * config.steps,
        ),
        worker_seconds=worker,
        wall_seconds=Span(*(max(seconds / concurrency, longest) for seconds in worker)),
        gpu_seconds=Span(*(seconds * gpus for seconds in worker)),
        disk_bytes=round(
            (trials - len(references)) * fmean(costs.disk_bytes for costs in searched)
            + sum(costs.disk_bytes for costs in references.values())
        ),
        cost=None if prices is None else Span(*(prices.paid(seconds, device) for seconds in worker)),
    )


def trial_seconds(costs: Costs, config: TrainConfig, steps: int) -> float:
    """Return how long a trial occupies a worker if it ends at a step."""
    is_full = steps >= config.steps
    reports = (config.steps - 1) // config.report_every if is_full else steps // config.report_every
    end = costs.seconds_at_end if is_full else 0.0
    return costs.seconds_to_start + steps * costs.seconds_per_step + reports * costs.seconds_per_report + end


def verdicts(spec: SweepSpec, found: Estimate) -> list[str]:
    """Say of each limit of the budget whether the sweep will be done within it.

    Args:
        spec: the sweep.
        found: its estimate.
    """
    lines = []
    limits = (
        ("hours", spec.budget.hours, _in_hours(found.wall_seconds)),
        ("gpu_hours", spec.budget.gpu_hours, _in_hours(found.gpu_seconds)),
        ("cost", spec.budget.cost, found.cost),
    )
    for name, limit, needed in limits:
        if limit is None or needed is None:
            continue
        low, high = needed
        if high <= limit:
            lines.append(f"budget.{name} {limit:g} is enough")
        elif low <= limit:
            lines.append(
                f"budget.{name} {limit:g} is enough only if early stopping saves what it can ({low:.3g} to {high:.3g})"
            )
        else:
            share = limit / low
            lines.append(
                f"budget.{name} {limit:g} is not enough: it takes at least {low:.3g}, so at most about "
                f"{int(share * found.trials)} of {found.trials} trials will be run"
            )
    return lines


def _in_hours(seconds: Span) -> Span:
    return Span(seconds.low / 3600, seconds.high / 3600)
