"""What a sweep found, as plain tables: pure functions over trial records and the result files that training wrote.

Quality is mean IoU in [0, 1]; only presentation turns it into per cent. Figures made from target labels (`oracle/...`)
are read here, because a report shows them; what may steer a choice is decided in `sweeps.selection`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from segda.methods import METHODS
from segda.tunable import Scalar
from sweeps.fields import value_at
from sweeps.trial import TrialKind, TrialRecord, TrialState

SOURCE_MIOU = "source/val/miou"
TARGET_MIOU = "oracle/target/miou"

# Parameters that the method label already shows.
_IN_METHOD_LABEL = frozenset({"method.name", "method.discriminator"})


@dataclass(frozen=True)
class TrialRow:
    """One line of the table of trials; a figure that does not exist is None.

    Attributes:
        number: position in the sweep.
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
    """

    number: int
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


@dataclass(frozen=True)
class MeanInterval:
    """Mean of repeated trainings and how far it can be trusted.

    Attributes:
        n: number of values.
        mean: arithmetic mean.
        std: sample standard deviation (n - 1 in the denominator); None for one value.
        low, high: two-sided 95 % Student t-interval of the mean; None for one value.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SeedGroup:
    """A trial together with its repetitions over training seeds.

    Attributes:
        number: the trial that the sampler proposed.
        seeds: training seeds that finished, the trial's own first.
        source: source validation mean IoU over the seeds.
        target: target mean IoU over the seeds (oracle); None where it was not measured for every seed.
    """

    number: int
    seeds: tuple[int, ...]
    source: MeanInterval
    target: MeanInterval | None


@dataclass(frozen=True)
class MethodRow:
    """What one method got and what it made of it.

    Attributes:
        method: method label.
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
class GapRow:
    """How much quality a network loses between the domains.

    Attributes:
        label: which network.
        number: its trial.
        source_miou: mean IoU on a source split.
        target_miou: mean IoU on the labelled target split (oracle).
        gap: source minus target.
        closed: share of the distance from source-only training to the upper bound that it covers; None if either is
            missing.
    """

    label: str
    number: int
    source_miou: float
    target_miou: float
    gap: float
    closed: float | None


@dataclass(frozen=True)
class RegretRow:
    """What a criterion chose and what that cost.

    Attributes:
        criterion: name of the criterion.
        picked: its choice.
        source_miou: source validation mean IoU of the choice.
        target_miou: target mean IoU of the choice (oracle).
        regret: target mean IoU of the oracle's choice minus that of this one; None where either is missing.
    """

    criterion: str
    picked: TrialRecord | None
    source_miou: float | None
    target_miou: float | None
    regret: float | None


@dataclass(frozen=True)
class ClassRow:
    """IoU of one class for several networks.

    Attributes:
        name: class.
        values: one IoU in [0, 1] per network in the order asked for; None where the class does not occur.
    """

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ArchitectureRow:
    """Cost of one architecture.

    Attributes:
        model: label, e.g. `bisenet_v1 (resnet18)`.
        height, width: input size in pixels.
        trials: numbers of the trials that use it.
        profile: efficiency figures by name.
    """

    model: str
    height: int | None
    width: int | None
    trials: tuple[int, ...]
    profile: Mapping[str, float]


def finite(values: Mapping[str, float], name: str) -> float | None:
    """Return a figure, or None if it is missing, NaN or infinite."""
    value = values.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def method_name(trial: TrialRecord) -> str:
    """Return the name of the trial's adaptation method."""
    return str(value_at(trial.config, "method.name") or trial.params.get("method.name") or "unknown")


def method_label(trial: TrialRecord) -> str:
    """Return the method with its discriminator, e.g. `adversarial × fcd`."""
    discriminator = value_at(trial.config, "method.discriminator") or trial.params.get("method.discriminator")
    return f"{method_name(trial)} × {discriminator}" if discriminator else method_name(trial)


def model_label(trial: TrialRecord) -> str:
    """Return the network with its trunk, e.g. `bisenet_v1 (resnet18)`."""
    name = value_at(trial.config, "model.name") or "unknown"
    backbone = value_at(trial.config, "model.backbone")
    return f"{name} ({backbone})" if backbone else str(name)


def uses_target_labels(trial: TrialRecord) -> bool:
    """Whether the trial was trained with target labels and so is an upper bound, not a candidate."""
    method = METHODS.get(method_name(trial))
    return method is not None and method.supervision == "target"


def format_value(value: Scalar) -> str:
    """Return a parameter value in short form: three significant digits for floats."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return dotted path -> the shortest name that tells it from the others.

    That is the last part, or the one before it where the last part is just `name`; the whole path where two would be alike.

    Example:
        >>> short_names(["model.name", "optimizer.lr", "batch_size"])
        {'model.name': 'model', 'optimizer.lr': 'lr', 'batch_size': 'batch_size'}
    """
    shortened = {path: path.removesuffix(".name").rpartition(".")[2] for path in paths}
    taken = list(shortened.values())
    return {path: name if taken.count(name) == 1 else path for path, name in shortened.items()}


def short_params(params: Mapping[str, Scalar]) -> str:
    """Return the parameters as one short line, without those that the method label shows.

    Example:
        >>> short_params({"method.name": "adversarial", "optimizer.lr": 0.025, "batch_size": 4})
        'lr 0.025, batch_size 4'
    """
    names = short_names(path for path in params if path not in _IN_METHOD_LABEL)
    return ", ".join(f"{name} {format_value(params[path])}" for path, name in names.items())


def kind_label(trial: TrialRecord) -> str:
    """Return why the trial exists, with the reference's name or the repeated trial's number."""
    if trial.kind is TrialKind.REFERENCE and trial.name:
        return f"reference: {trial.name}"
    if trial.kind is TrialKind.REPLICATE and trial.parent is not None:
        return f"replicate of {trial.parent}"
    return trial.kind.value


def trial_rows(trials: Iterable[TrialRecord]) -> list[TrialRow]:
    """Return the table of all trials in the order of their numbers."""
    return [
        TrialRow(
            number=trial.number,
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
        )
        for trial in sorted(trials, key=lambda trial: trial.number)
    ]


def pareto_front(trials: Iterable[TrialRecord], *, metric: str, cost: str) -> list[TrialRecord]:
    """Return the fully trained candidates that no other candidate beats at quality and cost together.

    Only COMPLETE search trials enter: pruned trials are of another fidelity, references saw target labels or are
    baselines, replicates repeat a candidate. Of trials equal in both figures the one with the smallest number stays.

    Args:
        trials: records of one sweep.
        metric: quality to maximize.
        cost: name in the profile to minimize, e.g. `latency_ms`.

    Returns:
        The front by rising cost, so by rising quality too.
    """
    points = []
    for trial in trials:
        quality, price = finite(trial.metrics, metric), finite(trial.profile, cost)
        if is_candidate(trial) and quality is not None and price is not None:
            points.append((price, -quality, trial.number, trial))
    front: list[TrialRecord] = []
    best = -math.inf
    for _, negative_quality, _, trial in sorted(points, key=lambda point: point[:3]):
        if -negative_quality > best:
            best = -negative_quality
            front.append(trial)
    return front


def is_candidate(trial: TrialRecord) -> bool:
    """Whether a trial is of full fidelity, was proposed by the search and saw no target label."""
    return trial.state is TrialState.COMPLETE and trial.kind is TrialKind.SEARCH and not uses_target_labels(trial)


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Return mean, standard deviation and 95 % t-interval.

    Args:
        values: one figure per seed, at least one.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return MeanInterval(n=1, mean=mean, std=None, low=None, high=None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return MeanInterval(n=n, mean=mean, std=std, low=mean - half, high=mean + half)


def seed_groups(trials: Sequence[TrialRecord]) -> list[SeedGroup]:
    """Return each finalist with its finished repetitions; trials without a finished replicate are left out."""
    repetitions: dict[int, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.kind is TrialKind.REPLICATE and trial.state is TrialState.COMPLETE and trial.parent is not None:
            repetitions.setdefault(trial.parent, []).append(trial)
    groups = []
    for parent in sorted(trials, key=lambda trial: trial.number):
        if parent.number not in repetitions or parent.state is not TrialState.COMPLETE:
            continue
        members = [
            trial for trial in [parent, *repetitions[parent.number]] if finite(trial.metrics, SOURCE_MIOU) is not None
        ]
        if len(members) < 2:
            continue
        targets = [value for trial in members if (value := finite(trial.metrics, TARGET_MIOU)) is not None]
        groups.append(
            SeedGroup(
                number=parent.number,
                seeds=tuple(trial.seed for trial in members),
                source=mean_interval([trial.metrics[SOURCE_MIOU] for trial in members]),
                target=mean_interval(targets) if len(targets) == len(members) else None,
            )
        )
    return groups


def best_by(trials: Iterable[TrialRecord], metric: str) -> TrialRecord | None:
    """Return the COMPLETE trial with the highest figure; of equals the one with the smallest number."""
    scored = [
        (-value, trial.number, trial)
        for trial in trials
        if trial.state is TrialState.COMPLETE and (value := finite(trial.metrics, metric)) is not None
    ]
    return min(scored, key=lambda item: item[:2])[2] if scored else None


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
                method=method,
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


def rank_correlation(trials: Iterable[TrialRecord], *, metric: str, against: str) -> tuple[float, int] | None:
    """Return Spearman's rank correlation of two figures over the fully trained candidates, and their number.

    It says how well a criterion that needs no target label orders the trials as the target labels would.

    Returns:
        (correlation in [-1, 1], n), or None with fewer than three trials or where a figure never varies.
    """
    pairs = [
        (first, second)
        for trial in trials
        if is_candidate(trial)
        and (first := finite(trial.metrics, metric)) is not None
        and (second := finite(trial.metrics, against)) is not None
    ]
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return None
    first_column, second_column = zip(*pairs, strict=True)
    return float(stats.spearmanr(first_column, second_column).statistic), len(pairs)


def regret_rows(choices: Mapping[str, TrialRecord | None], *, oracle: TrialRecord | None) -> list[RegretRow]:
    """Return what each criterion's choice loses against the choice that reads target labels.

    Args:
        choices: criterion -> the trial that it picks.
        oracle: the trial that target labels pick.
    """
    best = finite(oracle.metrics, TARGET_MIOU) if oracle else None
    rows = []
    for criterion, picked in choices.items():
        target = finite(picked.metrics, TARGET_MIOU) if picked else None
        rows.append(
            RegretRow(
                criterion=criterion,
                picked=picked,
                source_miou=finite(picked.metrics, SOURCE_MIOU) if picked else None,
                target_miou=target,
                regret=best - target if best is not None and target is not None else None,
            )
        )
    return rows


def gap_rows(
    networks: Mapping[str, TrialRecord], *, source_only: TrialRecord | None, upper_bound: TrialRecord | None
) -> list[GapRow]:
    """Return the distance between the domains for some networks.

    Args:
        networks: label -> trial; trials without both figures are left out.
        source_only: the network without adaptation: 0 of the closed share.
        upper_bound: the network trained on target labels: 1 of the closed share.

    Returns:
        One row per network in the given order. `closed` may be negative (adaptation hurt) or above 1.
    """
    floor = finite(source_only.metrics, TARGET_MIOU) if source_only else None
    ceiling = finite(upper_bound.metrics, TARGET_MIOU) if upper_bound else None
    rows = []
    for label, trial in networks.items():
        source, target = finite(trial.metrics, SOURCE_MIOU), finite(trial.metrics, TARGET_MIOU)
        if source is None or target is None:
            continue
        closed = None
        if floor is not None and ceiling is not None and ceiling > floor:
            closed = (target - floor) / (ceiling - floor)
        rows.append(GapRow(label, trial.number, source, target, source - target, closed))
    return rows


def class_rows(columns: Sequence[tuple[Mapping[str, Any] | None, str]]) -> list[ClassRow]:
    """Return the per-class IoU of several networks.

    Args:
        columns: for each network and split, the content of its `result.json` (None where it is missing) and the key in
            `splits`, e.g. `source/val` or `oracle/target`.

    Returns:
        One row per class in the data set's order; empty if no column has figures.
    """
    tables = [((result or {}).get("splits") or {}).get(split) for result, split in columns]
    figures: list[Mapping[str, float]] = [(table or {}).get("iou") or {} for table in tables]
    names: dict[str, None] = {}
    for (result, _), column in zip(columns, figures, strict=True):
        names.update(dict.fromkeys(name for name in (result or {}).get("classes", column) if name in column))
    return [ClassRow(name, tuple(finite(column, name) for column in figures)) for name in names]


def architecture_rows(trials: Iterable[TrialRecord]) -> list[ArchitectureRow]:
    """Return each profiled architecture once, with the trials that use it, by rising MACs."""
    groups: dict[tuple[str, int | None, int | None, tuple[tuple[str, float], ...]], list[int]] = {}
    for trial in trials:
        if trial.profile:
            height, width = value_at(trial.config, "data.height"), value_at(trial.config, "data.width")
            key = (model_label(trial), height, width, tuple(sorted(trial.profile.items())))
            groups.setdefault(key, []).append(trial.number)
    rows = [
        ArchitectureRow(model, height, width, tuple(sorted(numbers)), dict(profile))
        for (model, height, width, profile), numbers in groups.items()
    ]
    return sorted(rows, key=lambda row: (row.profile.get("macs", math.inf), row.model))
