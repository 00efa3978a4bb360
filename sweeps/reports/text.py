"""What a report says in words: conditions, warnings, and figures in the units that people read."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from segda.tunable import Scalar
from sweeps.file.auto import chosen_sampler
from sweeps.file.spec import SweepSpec
from sweeps.labels import format_value
from sweeps.paths import leaves, value_at
from sweeps.planning.counts import planned_trials
from sweeps.reports.marks import footnotes
from sweeps.reports.tables import method_rows
from sweeps.reports.view import SweepView
from sweeps.selection.guards import collapse
from sweeps.selection.reasons import too_few_seeds
from sweeps.selection.seeds import MeanInterval, repetitions
from sweeps.suggestions import suggest
from sweeps.trial import TrialKind, TrialState

# Below this rank correlation the criterion says little about the target; a regret above two points is worth a warning too.
WEAK_CORRELATION = 0.5
LARGE_REGRET = 0.02
# Share of a searched range that counts as its end.
EDGE = 0.05


def asked_rows(view: SweepView) -> list[tuple[str, str]]:
    """Return what was asked and under which conditions: (label, text)."""
    spec, config = view.spec, view.sample
    objectives = ", ".join(f"{item.direction} {item.metric}" for item in spec.objectives)
    budget = view.record.spec.get("budget") or {}
    scheduler = spec.scheduler.name
    started = [trial.started for trial in view.trials if trial.started is not None]
    finished = [trial.finished for trial in view.trials if trial.finished is not None]
    size = f"{value_at(config, 'data.height')} x {value_at(config, 'data.width')} pixels (height x width)"
    criterion = (
        "oracle: reads target labels" if spec.selection == "oracle" else f"{spec.selection}: reads no target label"
    )
    return [
        ("selection", criterion),
        ("objectives", objectives),
        ("constraints", ", ".join(str(item) for item in spec.constraints) or "none"),
        ("source", view.source_split),
        ("target", f"{view.target_split} (its labels are for oracle metrics)"),
        ("images", size),
        ("training", f"{value_at(config, 'steps')} steps, batch {value_at(config, 'batch_size')} per domain"),
        ("budget", ", ".join(f"{name} {value}" for name, value in budget.items() if value is not None)),
        ("search", f"{chosen_sampler(spec, spec.space)}, seed {spec.seed}; scheduler {scheduler}"),
        ("training seeds", f"{', '.join(str(seed) for seed in spec.seeds)}; {_repeated(spec)}"),
        ("device", view.device),
        ("precision", precision_text(view)),
        ("run by", "PyTorch, as trained" if spec.deploy is None else str(spec.deploy)),
        ("created", date(view.record.created)),
        ("first trial started", date(min(started)) if started else "not yet"),
        ("last trial finished", date(max(finished)) if finished else "not yet"),
    ]


def _repeated(spec: SweepSpec) -> str:
    """Return what the further seeds are for."""
    of_each = f" of each {', '.join(spec.finalists_of_each)}" if spec.finalists_of_each else ""
    references = " and the references" if spec.repeat_references else ""
    return f"{count(spec.finalists, 'finalist')}{of_each}{references}"


def precision_text(view: SweepView) -> str:
    """Return the precision that was asked for, and the one that networks computed in."""
    asked = str(value_at(view.sample, "precision") or "auto")
    used = sorted({str(result["precision"]) for result in view.results.values() if result.get("precision")})
    return f"{asked}, computed in {', '.join(used)}" if used else asked


def state_line(view: SweepView) -> str:
    """Return how far the sweep is, in one line."""
    counts = {state: sum(trial.state is state for trial in view.trials) for state in TrialState}
    shown = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    return f"{count(len(view.trials), 'trial')}: {shown}" if view.trials else "no trial yet"


def context_line(view: SweepView) -> str:
    """Return the conditions that every table shares; it stands under each of them."""
    chosen = "chosen with target labels (oracle)" if view.spec.selection == "oracle" else "chosen without target labels"
    seeds = count(len(view.spec.seeds), "training seed")
    run_by = "" if view.spec.deploy is None else f", run by {view.spec.deploy}"
    return (
        f"mIoU and IoU in %; source: {view.source_split}; target: {view.target_split}, an oracle metric; "
        f"{chosen} ({view.spec.selection}); {seeds} asked for; efficiency on {view.device}, one image at a time{run_by}."
    )


def measured_text(view: SweepView) -> str:
    """Return with what arithmetic efficiency was measured, and what ran the networks if it was not PyTorch as in training."""
    return f"precision {precision_text(view)}" if view.spec.deploy is None else f"run by {view.spec.deploy}"


def deployed_text(view: SweepView) -> str:
    """Return what `sweeps deploy` wrote last, in one line; empty without a winner."""
    facts = view.deployed
    if facts is None:
        return ""
    figures = facts["figures"]
    doubts = ", not measured alone" if facts["doubts"] else ""
    file = f"{facts['recipe']}, {scaled(figures['file_mb'])} MB, SHA-256 {facts['sha256'][:16]}..."
    latency = f"{scaled(figures['latency_ms'])} ms per image on {facts['device']}{doubts}"
    return (
        f"trial {facts['trial']} as a file ({file}) within {', '.join(facts['budgets'])}: {latency}; it says what its network says "
        f"in {percent(figures['agreement'])} % of the pixels. Its model card lies beside it, in deploy/winner."
    )


def mark_lines(view: SweepView) -> list[str]:
    """Return what the marks beside trials mean; the lines stand under each table with marked trials."""
    return footnotes(view.trials, processes=view.spec.resources.processes)


def warning_lines(view: SweepView, *, oracle: bool = True) -> list[str]:
    """Return what a reader must know before believing the report.

    Args:
        view: the sweep.
        oracle: with what target labels say of the criterion.
    """
    lines = []
    if view.spec.selection == "oracle":
        lines.append(
            "Target labels were used to choose (selection: oracle). The metrics are upper limits, not what an unlabelled "
            "target would give."
        )
    planned = planned_trials(view.spec).search
    searched = sum(trial.kind is TrialKind.SEARCH for trial in view.trials)
    if view.unfinished:
        lines.append(
            f"The sweep is not finished: {view.unfinished} of {count(len(view.trials), 'trial')} still to end."
        )
        if not view.is_driven:
            lines.append(f"Nothing works on the sweep now; {suggest('resume', view.record.name)} continues it.")
    if searched < planned:
        lines.append(f"{searched} of {planned} search trials have been started.")
    lines += _trust_lines(view)
    if oracle and view.picked is not None and view.spec.selection != "oracle":
        lines += _target_lines(view)
    failed = sum(trial.state is TrialState.FAILED for trial in view.trials)
    if failed:
        lines.append(f"{count(failed, 'trial')} failed; see failures.")
    lines += mark_lines(view)
    counts = {row.method: row.trials for row in method_rows(view.trials)}
    if len(counts) > 1 and max(counts.values()) > 1.5 * min(counts.values()):
        shown = ", ".join(f"{method} {count}" for method, count in counts.items())
        lines.append(f"Methods had unequal shares of the budget (search trials: {shown}).")
    if len(view.devices) > 1:
        lines.append(f"Trials ran on different devices: {', '.join(view.devices)}.")
    if any("latency_ms" in trial.profile for trial in view.trials):
        lines.append(f"Latency and fps were measured on {view.device}; another device may order networks differently.")
    return lines


def _trust_lines(view: SweepView) -> list[str]:
    """Return what limits the trust in the choice itself."""
    if view.picked is None:
        return []
    lines = []
    too_few = too_few_seeds(view.spec)
    if too_few is not None:
        lines.append(too_few)
    group = view.picked_seeds
    if group is None:
        lines.append(
            "The picked trial was trained with one seed only, the one that chose it: its metrics flatter it and have no interval."
        )
    elif group.source.n == 1:
        lines.append(
            "The picked configuration was trained with one further seed only: its metric there has no interval."
        )
    lines += [
        f"With seed {trial.seed} the picked configuration looks collapsed (trial {trial.number}): {why}."
        for trial in repetitions(view.picked.number, view.trials)
        if trial.state is TrialState.COMPLETE and (why := collapse(trial, view.trials))
    ]
    trouble = view.discriminator_troubles.get(view.picked.number)
    if trouble is not None:
        lines.append(f"Of the picked trial, {trouble}.")
    for path, value in view.picked.params.items():
        end = edge(view.spec, path, value)
        if end is not None:
            lines.append(f"{path} of the picked trial, {format_value(value)}, lies at the {end} of its range.")
    if view.source_only is None:
        lines.append("No source-only network was trained: what adaptation gains is unknown.")
    return lines


def _target_lines(view: SweepView) -> list[str]:
    """Return what target labels say of a criterion that did not read them."""
    lines = []
    regret, correlation = view.criterion.regret, view.criterion.correlation
    if correlation is not None and correlation < WEAK_CORRELATION:
        lines.append(
            f"The criterion is weak here: {view.selection.used} orders {view.criterion.candidates} candidates with a rank "
            f"correlation of {correlation:.2f} to the target."
        )
    if regret is not None and regret > LARGE_REGRET:
        lines.append(
            f"The choice loses {100 * regret:.1f} points of target mIoU against the best candidate (one seed)."
        )
    if regret is None:
        lines.append("Target metrics are missing, so the criterion could not be checked against the target.")
    return lines


def edge(spec: SweepSpec, path: str, value: Scalar) -> str | None:
    """Return which end of its searched range a value is close to: the best may lie beyond. None in the middle."""
    searched = spec.search.get(path)
    if searched is None or searched.low is None or searched.high is None or not isinstance(value, int | float):
        return None
    scale = math.log if searched.log else float
    position = (scale(value) - scale(searched.low)) / (scale(searched.high) - scale(searched.low))
    return "lower end" if position < EDGE else "upper end" if position > 1 - EDGE else None


def environment_rows(view: SweepView) -> list[tuple[str, str]]:
    """Return versions, code and hardware: what the sweep noted, and the first trial's own record."""
    rows = _noted(view.record.info.plain())
    for number in sorted(view.environments)[:1]:
        rows = _noted(view.environments[number]) | rows
    return sorted(rows.items())


def _noted(values: Mapping[str, Any]) -> dict[str, str]:
    known = ((name, value) for name, value in leaves(values) if value not in (None, {}, ()))
    return {name.removeprefix("environment."): str(value) for name, value in known}


def percent(value: float | None) -> str:
    """Return a share in per cent with one digit, or a dash.

    Example:
        >>> percent(0.6312), percent(None)
        ('63.1', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def scaled(value: float | None, factor: float = 1.0) -> str:
    """Return a figure times a factor with three significant digits, or a dash.

    Example:
        >>> scaled(12_345_678, 1e-6), scaled(1234.5)
        ('12.3', '1234')
    """
    if value is None or not math.isfinite(value):
        return "–"
    number = value * factor
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def spread(summary: MeanInterval | None) -> str:
    """Return mean and standard deviation in per cent, the mean alone for one value, or a dash."""
    if summary is None:
        return "–"
    return f"{percent(summary.mean)} ± {percent(summary.std)}" if summary.std is not None else percent(summary.mean)


def interval(summary: MeanInterval | None) -> str:
    """Return the 95 % interval in per cent, or a dash where there is none."""
    return f"{percent(summary.low)} to {percent(summary.high)}" if summary and summary.n > 1 else "–"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "trial"), count(2, "trial")
        ('1 trial', '2 trials')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def date(seconds: float) -> str:
    """Return a time, given in seconds since 1970, in UTC to the minute."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
