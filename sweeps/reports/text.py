"""What a report says in words: conditions, warnings, and figures in the units that people read."""

import math
from collections.abc import Mapping
from typing import Any

from segda.tunable import Scalar
from sweeps.file.auto import chosen_sampler
from sweeps.file.spec import SweepSpec
from sweeps.labels import format_value
from sweeps.paths import leaves, value_at
from sweeps.planning.counts import planned_trials
from sweeps.reports.formats import count, date, percent, scaled
from sweeps.reports.marks import footnotes
from sweeps.reports.tables import methods_table
from sweeps.reports.view import SweepView
from sweeps.selection.analysis import RankCorrelation
from sweeps.selection.guards import collapse
from sweeps.selection.reasons import too_few_seeds
from sweeps.selection.seeds import repetitions
from sweeps.suggestions import suggest
from sweeps.trial import TrialKind, TrialState

# Below this rank correlation the criterion says little about the target; a regret above two points is worth a warning too.
WEAK_CORRELATION = 0.5
LARGE_REGRET = 0.02
# Share of a searched range that counts as its end.
EDGE = 0.05


_COST_AWARE = (
    "what a proposal promised was divided by the time that its trial was predicted to take, to a power that fell from 1 to 0 as "
    "the budget was used"
)


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
        ("budget", ", ".join(f"{name} {value}" for name, value in budget.items() if value not in (None, {}))),
        ("search", f"{chosen_sampler(spec, spec.space)}, seed {spec.seed}; scheduler {scheduler}"),
        *([("costs in the search", _COST_AWARE)] if spec.sampler.cost_aware else []),
        ("training seeds", f"{seeds_text(spec)}; {_repeated(spec)}"),
        ("device", view.device),
        ("precision", precision_text(view)),
        ("run by", "PyTorch, as trained" if spec.deploy is None else str(spec.deploy)),
        ("created", date(view.record.created)),
        ("first trial started", date(min(started)) if started else "not yet"),
        ("last trial finished", date(max(finished)) if finished else "not yet"),
    ]


def seeds_text(spec: SweepSpec) -> str:
    """Return the training seeds of a sweep."""
    listed = ", ".join(map(str, spec.listed_seeds))
    budget = spec.seed_budget
    if budget is None:
        return listed
    return f"{listed}, and up to {budget.budget} further runs until the best is known by {budget.confidence:.0%}"


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
    """Return the conditions that every table shares."""
    chosen = "chosen with target labels (oracle)" if view.spec.selection == "oracle" else "chosen without target labels"
    budget = view.spec.seed_budget
    seeds = (
        count(len(view.spec.listed_seeds), "training seed")
        if budget is None
        else f"one training seed and up to {budget.budget} further runs"
    )
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


def labelled_text(view: SweepView) -> str:
    """Return what labels of target images chose (`sweeps pick`), and that they are spent; empty without a label."""
    facts = view.labelled
    if facts is None:
        return ""
    images = count(len(facts["images"]), "target training image")
    same = facts["trial"] == facts["unlabelled"]
    without = "nothing can be picked" if facts["unlabelled"] is None else f"it is trial {facts['unlabelled']}"
    return (
        f"trial {facts['trial']}, by the labels of {images}; without labels {'it is the same' if same else without}. These labels "
        f"are spent: they chose, so no figure over these images is unbiased. {suggest('pick', view.record.name)} has the figures."
    )


def mark_lines(view: SweepView) -> list[str]:
    """Return what the marks beside trials mean."""
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
    counts = {row["method"]: row["trials"] for row in methods_table(view.trials).records()}
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
    regret, ordered = view.criterion.regret, view.criterion.correlation
    if ordered is not None:
        lines += _order_lines(view.selection.used, ordered)
    if regret is not None and regret > LARGE_REGRET:
        lines.append(
            f"The choice loses {100 * regret:.1f} points of target mIoU against the best that could have been picked (one seed)."
        )
    if regret is None:
        lines.append("Target metrics are missing, so the criterion could not be checked against the target.")
    return lines


def _order_lines(criterion: str, ordered: RankCorrelation) -> list[str]:
    """Return what is known of how a criterion orders candidates, if that is little or not good."""
    low, high = ordered.interval
    needed = "" if ordered.needed is None else f"; about {ordered.needed} would tell such a rank correlation from none"
    if not ordered.is_enough:
        few = count(ordered.n, "candidate")
        return [f"{few} are too few to say whether {criterion} orders them as the target does{needed}."]
    found = f"{ordered.value:.2f} over {ordered.n} candidates (95 % interval {low:.2f} to {high:.2f})"
    if not ordered.is_told_from_none:
        return [f"Whether {criterion} orders candidates as the target does is open: rank correlation {found}{needed}."]
    if ordered.value < WEAK_CORRELATION:
        return [
            f"The criterion is weak here: {criterion} orders candidates with a rank correlation to the target of {found}."
        ]
    return []


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
