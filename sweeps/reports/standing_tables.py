"""What each method is worth: its choice over seeds, beside what a choice with target labels would have given."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.file.fields import HOST, METHOD
from sweeps.labels import format_value, method_name, short_names
from sweeps.metrics import SECONDS_PER_STEP, TARGET_MIOU, TARGET_MIOU_UNDER, TARGET_MIOU_WELL, finite
from sweeps.paths import value_at
from sweeps.reports.columns import NUMBER, interval_of
from sweeps.reports.formats import FIGURE, PERCENT, WHOLE, Format
from sweeps.reports.seed_formats import SPREAD
from sweeps.reports.table import Column, Table, table_of
from sweeps.selection.analysis import best_by
from sweeps.selection.seeds import MeanInterval, mean_interval, repetitions
from sweeps.trial import TrialKind, TrialRecord, TrialState

_HOST = f"{HOST}.name"
Curves = Mapping[int, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class StandingRow:
    """One method, or one reference.

    All figures but the costs are made from target labels; the choice of the trial is not.

    Attributes:
        label: method, or name of the reference.
        trial: the best of the method by the sweep's criterion.
        seeds: further training seeds that finished.
        values: target mean IoU with each of them.
        search_seed: target mean IoU with the seed that chose it, in [0, 1].
        target: the same over the further seeds; None without any.
        gain: over the baseline, seed by seed over the further seeds that both have; None without any.
        closed: share of the distance from the baseline to the upper bound, of the means over further seeds; None where only the
            others have some.
        well: target mean IoU of the well represented classes over the further seeds, or with the search's without any.
        under: the same of the under-represented classes.
        best_checkpoint: the best target mean IoU of any report, mean over the same seeds as `target`; None where trainings scored
            the target at their end only.
        best_of_search: the best target mean IoU of any of the method's search trials with the search's seed.
        seconds_per_step: of training, mean over the same seeds.
        relative_cost: the same relative to the baseline.
    """

    label: str
    trial: TrialRecord
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    search_seed: float | None
    target: MeanInterval | None
    gain: MeanInterval | None
    closed: float | None
    well: float | None
    under: float | None
    best_checkpoint: float | None
    best_of_search: float | None
    seconds_per_step: float | None
    relative_cost: float | None


def standing_rows(
    trials: Sequence[TrialRecord],
    *,
    ranked: Iterable[int],
    baseline: TrialRecord | None,
    upper_bound: TrialRecord | None,
    curves: Curves,
    paths: Sequence[str] = (),
) -> list[StandingRow]:
    """Return what each method and each reference is worth, the best target figure first; what has no further seeds comes last.

    Args:
        trials: records of one sweep.
        ranked: numbers of the candidates that qualify, best first by the sweep's criterion.
        baseline: what gains and costs are relative to, a network without adaptation.
        upper_bound: the network trained on target labels: all of the distance.
        curves: trial number -> (step, target mean IoU) of its reports.
        paths: searched paths besides the method whose values are compared, as `finalists_of_each` names them.
    """
    by_number = {trial.number: trial for trial in trials}
    members: dict[str, TrialRecord] = {}
    for number in ranked:
        members.setdefault(_group(by_number[number], paths), by_number[number])
    for trial in trials:
        if trial.kind is TrialKind.REFERENCE and trial.state is TrialState.COMPLETE:
            members[f"reference: {trial.name}"] = trial
    floor = _counted(baseline, trials)
    low, high = _mean(floor, TARGET_MIOU), _mean(_counted(upper_bound, trials), TARGET_MIOU)
    are_repeated = floor != [baseline]
    unit = _mean(floor, SECONDS_PER_STEP)
    rows = []
    for label, trial in members.items():
        counted = _counted(trial, trials)
        target = _values(counted, TARGET_MIOU)
        further = target if counted != [trial] else {}
        searched = [other for other in trials if other.kind is TrialKind.SEARCH and _group(other, paths) == label]
        best = best_by(searched, TARGET_MIOU)
        seconds = _mean(counted, SECONDS_PER_STEP)
        rows.append(
            StandingRow(
                label=label,
                trial=trial,
                seeds=tuple(further),
                values=tuple(further.values()),
                search_seed=finite(trial.metrics, TARGET_MIOU),
                target=mean_interval(list(further.values())) if further else None,
                gain=_gain(further, _values(floor, TARGET_MIOU)) if trial is not baseline else None,
                # One seed is not compared with the mean of others.
                closed=closed_share(_mean(counted, TARGET_MIOU), low=low, high=high)
                if bool(further) == are_repeated
                else None,
                well=_mean(counted, TARGET_MIOU_WELL),
                under=_mean(counted, TARGET_MIOU_UNDER),
                best_checkpoint=_best_checkpoint(counted, curves),
                best_of_search=finite(best.metrics, TARGET_MIOU) if best else None,
                seconds_per_step=seconds,
                relative_cost=seconds / unit if seconds and unit else None,
            )
        )
    return sorted(
        rows, key=lambda row: (row.target is None, -(row.target.mean if row.target else row.search_seed or 0))
    )


def standings_table(rows: Iterable[StandingRow]) -> Table:
    """Return what each method and each reference is worth.

    Args:
        rows: of `standing_rows`.
    """
    return table_of(
        rows,
        [
            (Column("label", "method"), lambda row: row.label),
            (NUMBER, lambda row: row.trial.number),
            (Column("n", "n", WHOLE, note="further seeds"), lambda row: len(row.seeds)),
            (_oracle("target_miou", "target mIoU", SPREAD, "mean ± std"), lambda row: row.target),
            (interval_of("target_miou", is_oracle=True), lambda row: row.target),
            (_oracle("gain", "gain over the baseline", SPREAD, "points, same seeds", unit=""), lambda row: row.gain),
            (interval_of("gain", is_oracle=True), lambda row: row.gain),
            (_oracle("closed", "closed", PERCENT), lambda row: row.closed),
            (_oracle("well", "well represented", PERCENT, "classes"), lambda row: row.well),
            (_oracle("under", "under-represented", PERCENT, "classes"), lambda row: row.under),
            (Column("seconds_per_step", "s per step", FIGURE), lambda row: row.seconds_per_step),
            (Column("relative_cost", "× baseline", FIGURE), lambda row: row.relative_cost),
            (_oracle("search_seed", "target mIoU", PERCENT, "search seed"), lambda row: row.search_seed),
            (_oracle("best_checkpoint", "best checkpoint", PERCENT, "oracle choice"), lambda row: row.best_checkpoint),
            (_oracle("best_of_search", "best of the search", PERCENT, "oracle choice"), lambda row: row.best_of_search),
        ],
        empty="No trial qualifies.",
    )


def _oracle(key: str, title: str, form: Format, note: str = "", *, unit: str = "%") -> Column:
    return Column(key, title, form, unit, note, is_oracle=True)


def closed_share(value: float | None, *, low: float | None, high: float | None) -> float | None:
    """Return which share of the way from a lower to an upper figure another one has come; None where there is no such way.

    Example:
        >>> closed_share(0.25, low=0.0, high=0.5), closed_share(0.25, low=0.0, high=None)
        (0.5, None)
    """
    if value is None or low is None or high is None or high <= low:
        return None
    return (value - low) / (high - low)


def _group(trial: TrialRecord, paths: Sequence[str]) -> str:
    """Return what a trial's row is called: its method, and what else is compared."""
    compared = [path for path in paths if path in trial.params and path not in (METHOD, _HOST)]
    names = short_names(compared)
    return ", ".join([_method(trial), *(f"{names[path]} {format_value(trial.params[path])}" for path in compared)])


def _method(trial: TrialRecord) -> str:
    """Return the name of a trial's method, with that of the one that it is put on: another method there is another one."""
    host = value_at(trial.config, _HOST)
    return f"{method_name(trial)} × {host}" if host else method_name(trial)


def _counted(trial: TrialRecord | None, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trainings in full with further seeds by seed; without any the trial itself, if there is one."""
    if trial is None:
        return []
    return [other for other in repetitions(trial.number, trials) if other.state is TrialState.COMPLETE] or [trial]


def _values(trials: Iterable[TrialRecord], metric: str) -> dict[int, float]:
    """Return seed -> figure."""
    return {trial.seed: value for trial in trials if (value := finite(trial.metrics, metric)) is not None}


def _mean(trials: Iterable[TrialRecord], metric: str) -> float | None:
    values = _values(trials, metric).values()
    return math.fsum(values) / len(values) if values else None


def _gain(figures: Mapping[int, float], floor: Mapping[int, float]) -> MeanInterval | None:
    differences = [figures[seed] - floor[seed] for seed in figures if seed in floor]
    return mean_interval(differences) if differences else None


def _best_checkpoint(trials: Iterable[TrialRecord], curves: Curves) -> float | None:
    best = [
        max(value for _, value in curves[trial.number]) for trial in trials if len(curves.get(trial.number, ())) > 1
    ]
    return math.fsum(best) / len(best) if best else None
