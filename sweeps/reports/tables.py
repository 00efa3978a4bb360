"""What a sweep found, as plain tables over trial records: trials, methods, criteria."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sweeps.labels import kind_label, method_label, short_params
from sweeps.metrics import CRITERIA, SOURCE_MIOU, TARGET_MIOU, finite
from sweeps.paths import value_at
from sweeps.reports.failure_tables import history
from sweeps.reports.marks import RECONSTRUCTED, is_reconstruction, mark
from sweeps.selection.analysis import best_by, rank_correlation
from sweeps.selection.choice import Selection
from sweeps.trial import TrialKind, TrialRecord, TrialState


@dataclass(frozen=True)
class TrialRow:
    """One line of the table of trials; a figure that does not exist is None.

    Attributes:
        number: position in the sweep.
        mark: what stands beside the number, see `sweeps.reports.marks`.
        kind: why the trial exists (`search`, `reference`, `replicate`), with its reference name or parent.
        state: where it stands.
        method: method label, e.g. `adversarial × fcd`.
        params: searched values in short form, e.g. `lr 0.025, lambda_adv 0.001`.
        seed: training seed.
        steps: last acknowledged training step.
        planned_steps: steps of a full training.
        source_miou: mean IoU on the source's validation split, in [0, 1].
        target_miou: mean IoU on the labelled target split, in [0, 1]; an oracle figure.
        macs: multiply-accumulates of one image.
        num_parameters: weights of the deployed network.
        latency_ms: median time of one image.
        fps: images per second.
        seconds: how long workers had it.
        notes: what was out of the ordinary: repeated attempts, smaller micro-batches, a result that was there already, a
            discriminator that gave no signal.
    """

    number: int
    mark: str
    kind: str
    state: TrialState
    method: str
    params: str
    seed: int
    steps: int
    planned_steps: int | None
    source_miou: float | None
    target_miou: float | None
    macs: float | None
    num_parameters: float | None
    latency_ms: float | None
    fps: float | None
    seconds: float
    notes: str


@dataclass(frozen=True)
class MethodRow:
    """What one method got and what it made of it.

    Attributes:
        method: method label, with the mark of reconstructions.
        trials: search trials that were proposed with it: its share of the budget.
        complete, pruned, infeasible, failed: how many of them ended so.
        steps: training steps spent on them.
        best: the complete trial with the best source validation mean IoU, or None.
        source_miou: its source validation mean IoU.
        target_miou: its target mean IoU (oracle).
        best_target_miou: best target mean IoU of any complete trial of the method (oracle choice).
    """

    method: str
    trials: int
    complete: int
    pruned: int
    infeasible: int
    failed: int
    steps: int
    best: TrialRecord | None
    source_miou: float | None
    target_miou: float | None
    best_target_miou: float | None


@dataclass(frozen=True)
class CriterionRow:
    """What a criterion chose, what that cost, and how well it orders the candidates.

    Attributes:
        criterion: name of the criterion.
        used: the one that chose, where it was refused.
        picked: its choice.
        figure: the criterion's own figure of the choice.
        source_miou: source validation mean IoU of the choice.
        target_miou: target mean IoU of the choice (oracle).
        regret: target mean IoU of the candidate that has most of it, of all that qualify, minus that of the choice, both with the
            search's seed; None where either is missing.
        correlation: Spearman's rank correlation of its figure with target mean IoU over the candidates that qualify (oracle); None
            where there are fewer than three.
        candidates: number of candidates behind the correlation.
    """

    criterion: str
    used: str
    picked: TrialRecord | None
    figure: float | None
    source_miou: float | None
    target_miou: float | None
    regret: float | None
    correlation: float | None
    candidates: int


def trial_rows(trials: Iterable[TrialRecord], *, troubles: Mapping[int, str] = MappingProxyType({})) -> list[TrialRow]:
    """Return the table of all trials in the order of their numbers.

    Args:
        trials: records of one sweep.
        troubles: number of trial -> what is wrong with its discriminator.
    """
    return [
        TrialRow(
            number=trial.number,
            mark=mark(trial),
            kind=kind_label(trial),
            state=trial.state,
            method=method_label(trial),
            params=short_params(trial.params),
            seed=trial.seed,
            steps=trial.step,
            planned_steps=value_at(trial.config, "steps"),
            source_miou=finite(trial.metrics, SOURCE_MIOU),
            target_miou=finite(trial.metrics, TARGET_MIOU),
            macs=finite(trial.profile, "macs"),
            num_parameters=finite(trial.profile, "num_parameters"),
            latency_ms=finite(trial.profile, "latency_ms"),
            fps=finite(trial.profile, "fps"),
            seconds=trial.seconds,
            notes="; ".join(filter(None, (history(trial), troubles.get(trial.number)))),
        )
        for trial in sorted(trials, key=lambda trial: trial.number)
    ]


def method_rows(trials: Iterable[TrialRecord]) -> list[MethodRow]:
    """Return, per method, its share of the budget and its best trial by source validation.

    The counts say whether methods were given equal effort; where they were not, comparing best trials means little.
    """
    by_method: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.kind is TrialKind.SEARCH:
            by_method.setdefault(method_label(trial), []).append(trial)
    rows = []
    for method in sorted(by_method):
        members = by_method[method]
        states = [trial.state for trial in members]
        best, best_target = best_by(members, SOURCE_MIOU), best_by(members, TARGET_MIOU)
        rows.append(
            MethodRow(
                method=method + (RECONSTRUCTED if is_reconstruction(members[0]) else ""),
                trials=len(members),
                complete=states.count(TrialState.COMPLETE),
                pruned=states.count(TrialState.PRUNED),
                infeasible=states.count(TrialState.INFEASIBLE),
                failed=states.count(TrialState.FAILED),
                steps=sum(trial.step for trial in members),
                best=best,
                source_miou=finite(best.metrics, SOURCE_MIOU) if best else None,
                target_miou=finite(best.metrics, TARGET_MIOU) if best else None,
                best_target_miou=finite(best_target.metrics, TARGET_MIOU) if best_target else None,
            )
        )
    return rows


def criterion_rows(trials: Sequence[TrialRecord], choices: Mapping[str, Selection]) -> list[CriterionRow]:
    """Return what each criterion's choice loses against the candidate with the best target figure.

    That is the first of the oracle's ranking. It need not be what the oracle picks: further seeds may promote another finalist.

    Args:
        trials: records of one sweep.
        choices: criterion -> its choice, the oracle's among them.
    """
    by_target = choices["oracle"].ranked
    best = next((trial.metrics[TARGET_MIOU] for trial in trials if trial.number in by_target[:1]), None)
    rows = []
    for criterion, selection in choices.items():
        picked, metric, ranked = selection.picked, CRITERIA[selection.used], frozenset(selection.ranked)
        target = finite(picked.metrics, TARGET_MIOU) if picked else None
        eligible = [trial for trial in trials if trial.number in ranked]
        ordered = None if criterion == "oracle" else rank_correlation(eligible, metric=metric, against=TARGET_MIOU)
        rows.append(
            CriterionRow(
                criterion=criterion,
                used=selection.used,
                picked=picked,
                figure=finite(picked.metrics, metric) if picked else None,
                source_miou=finite(picked.metrics, SOURCE_MIOU) if picked else None,
                target_miou=target,
                regret=best - target if best is not None and target is not None else None,
                correlation=ordered[0] if ordered else None,
                candidates=ordered[1] if ordered else 0,
            )
        )
    return rows
