"""Why a trial was chosen, in sentences."""

from collections.abc import Sequence

from sweeps.file.spec import SweepSpec
from sweeps.labels import method_label, short_params
from sweeps.metrics import LARGEST_CLASS_SHARE, MISSING_CLASSES, finite, is_doubtful
from sweeps.selection.finalists import Verdict
from sweeps.selection.seed_budget import Standing
from sweeps.selection.seeds import MIN_SEEDS, Paired, mean_interval, repetitions
from sweeps.trial import TrialKind, TrialRecord, TrialState


def shown_figure(metric: str, value: float) -> str:
    """Return a criterion's figure for people: mean IoU in per cent, a validator's score as it is.

    Example:
        >>> shown_figure("source/val/miou", 0.6214), shown_figure("target/validator/entropy", -0.31234)
        ('62.1%', '-0.3123')
    """
    return f"{value:.1%}" if metric.endswith("miou") else f"{value:.4g}"


def shown_gap(metric: str, value: float) -> str:
    """Return a difference of two figures for people.

    Example:
        >>> shown_gap("source/val/miou", 0.0121), shown_gap("target/validator/entropy", 0.0121)
        ('1.2 points', '0.0121')
    """
    return f"{100 * value:.1f} points" if metric.endswith("miou") else f"{value:.3g}"


def _named(trial: TrialRecord) -> str:
    details = ", ".join(part for part in (method_label(trial), short_params(trial.params)) if part)
    return f"trial {trial.number} ({details})"


def choice_reason(
    verdict: Verdict,
    ranked: Sequence[TrialRecord],
    trials: Sequence[TrialRecord],
    spec: SweepSpec,
    *,
    criterion: str,
    metric: str,
) -> str:
    """Return why a trial was chosen.

    Args:
        verdict: the choice among the finalists.
        ranked: candidates that qualify, best first.
        trials: all records of the sweep.
        spec: the sweep.
        criterion: name of the criterion.
        metric: its figure.
    """
    picked = verdict.picked
    name = _named(picked)
    name = name[0].upper() + name[1:]
    figure = f"{shown_figure(metric, picked.metrics[metric])} with seed {picked.seed}"
    if len(ranked) == 1:
        sentences = [f"{name} is the only candidate that qualifies; its {metric} is {figure}."]
    elif picked is ranked[0]:
        sentences = [f"{name} has the best {metric}, {figure}, of {len(ranked)} candidates that qualify."]
    else:
        place = f"rank {ranked.index(picked) + 1} of {len(ranked)} candidates that qualify"
        sentences = [f"{name} is picked among the finalists; its {metric} is {figure}, {place}."]
    sentences += _seed_sentences(verdict, ranked, trials, metric)
    if verdict.standing is not None:
        sentences += _standing_sentences(verdict.standing, metric)
    sentences += _constraint_sentences(picked, spec)
    if picked is ranked[0] and len(ranked) > 1:
        runner_up = ranked[1]
        margin = picked.metrics[metric] - runner_up.metrics[metric]
        behind = (
            f"{shown_gap(metric, margin)} behind" if margin > 0 else "level; fewer MACs or the smaller number decided"
        )
        value = shown_figure(metric, runner_up.metrics[metric])
        sentences.append(f"The runner-up, {_named(runner_up)}, has {value}: {behind}.")
    if criterion == "oracle":
        sentences.append("This choice read target labels.")
    else:
        sentences.append("No target label was read to choose.")
        if LARGEST_CLASS_SHARE not in picked.metrics or MISSING_CLASSES not in picked.metrics:
            sentences.append("Collapse on the target could not be checked: its metrics are missing.")
    return " ".join(sentences)


def _constraint_sentences(picked: TrialRecord, spec: SweepSpec) -> list[str]:
    shown = {
        is_judged: " and ".join(
            f"{item} (measured {picked.profile[item.metric]:.4g})"
            for item in spec.constraints
            if is_judged is not is_doubtful(picked.profile, item.metric)
        )
        for is_judged in (True, False)
    }
    sentences = [f"It keeps {shown[True]}."] if shown[True] else []
    if shown[False]:
        sentences.append(f"Whether it keeps {shown[False]} is not known: others computed on the device meanwhile.")
    return sentences


def _seed_sentences(
    verdict: Verdict, ranked: Sequence[TrialRecord], trials: Sequence[TrialRecord], metric: str
) -> list[str]:
    """Say what the further seeds show of the choice, and of each other finalist."""
    picked = verdict.picked
    values = [
        value
        for trial in repetitions(picked.number, trials)
        if trial.state is TrialState.COMPLETE and (value := finite(trial.metrics, metric)) is not None
    ]
    sentences = []
    if values:
        mean = mean_interval(values)
        over = "its mean over" if mean.n > 1 else "its value with"
        sentences.append(
            f"The search chose by that seed, so the metric flatters it; {over} {_further_seeds(mean.n)} is "
            f"{shown_figure(metric, mean.mean)}."
        )
    unstable = dict(verdict.unstable)
    by_number = {trial.number: trial for trial in ranked}
    for pair in verdict.comparisons:
        other = by_number[pair.other]
        # Between sentences about others `It` would be one of them.
        subject = "It" if pair.number == picked.number and not unstable else f"Trial {pair.number}"
        if other.number in unstable and picked.number not in unstable:
            sentences.append(f"Trial {other.number} gives way: {unstable[other.number]}.")
        elif pair.difference is not None and len(pair.seeds) >= MIN_SEEDS:
            sentences.append(_pair_sentence(pair, picked, metric, subject=subject))
        elif values or pair.seeds:
            sentences.append(
                f"{subject} cannot be compared with trial {other.number} over seeds: they have {len(pair.seeds)} further in "
                f"common, at least {MIN_SEEDS} are needed."
            )
    return sentences


def _standing_sentences(standing: Standing, metric: str) -> list[str]:
    """Say how sure the choice among the finalists is, what it could not have told, and what it is worth."""
    if len(standing.finalists) == 1:
        sentences = []
    else:
        spent = "the budget" if standing.runs >= standing.budget.budget else f"at most {standing.budget.budget}"
        sentences = [
            f"Of {len(standing.finalists)} finalists it is the best with probability {standing.probability:.0%} after "
            f"{standing.runs} further runs ({spent}; {standing.budget.confidence:.0%} ends them)."
        ]
    known, resolvable = standing.known, standing.known.resolvable()
    if known.deviation is not None:
        sentences.append(f"The standard deviation over seeds is {shown_gap(metric, known.deviation)}.")
    if resolvable is not None:
        sentences.append(
            f"Between the two most probable ones so many runs tell differences of {shown_gap(metric, resolvable)} from nothing."
        )
    gain = standing.gain
    if gain is not None and gain.low is not None and gain.high is not None:
        side = "ahead of" if gain.mean >= 0 else "behind"
        sentences.append(
            f"It is {shown_gap(metric, abs(gain.mean))} {side} the default configuration, trial {standing.default} (95 % interval "
            f"{shown_gap(metric, gain.low)} to {shown_gap(metric, gain.high)})."
        )
    elif standing.default == standing.leader:
        sentences.append("It is the default configuration: the search found nothing better.")
    return sentences


def _further_seeds(number: int) -> str:
    return f"{number} further seed{'s' if number > 1 else ''}"


def _pair_sentence(pair: Paired, picked: TrialRecord, metric: str, *, subject: str) -> str:
    assert pair.difference is not None
    mean, n = pair.difference.mean, len(pair.seeds)
    is_own = pair.number == picked.number
    if pair.holds:
        by = f"{subject} is better than trial {pair.other} by {shown_gap(metric, mean)}"
        if pair.everywhere:
            return f"{by} on average, and on each of {n} further common seeds (of equals 1 in {2**n} would be)."
        return f"{by} on average over {n} further common seeds, and the 95 % interval excludes zero."
    low, high = pair.difference.low, pair.difference.high
    between = (
        f", 95 % interval {shown_gap(metric, low)} to {shown_gap(metric, high)}"
        if low is not None and high is not None
        else ""
    )
    side = "ahead by" if mean >= 0 else "behind by"
    which = "Not separable from" if is_own else f"Trial {pair.number} is not separable from"
    kept = "the one that ranked better is kept" if is_own else f"trial {pair.other} does not take its place"
    return (
        f"{which} trial {pair.other} over {n} further common seeds ({side} {shown_gap(metric, abs(mean))} on average{between}): "
        f"{kept}."
    )


def too_few_seeds(spec: SweepSpec) -> str | None:
    """Return that finalists cannot be compared over so few seeds, or None if they can or there is one only."""
    further = len(spec.listed_seeds) - 1
    if (spec.finalists == 1 and not spec.finalists_of_each) or not 0 < further < MIN_SEEDS:
        return None
    return (
        f"A finalist replaces a better ranked one only by {MIN_SEEDS} seeds or more besides the search's own; with `seeds: "
        f"{list(spec.listed_seeds)}` the rank of the search decides among finalists."
    )


def nothing_reason(trials: Sequence[TrialRecord], rejected: Sequence[tuple[int, str]]) -> str:
    """Return why no trial can be chosen.

    Args:
        trials: all records of the sweep.
        rejected: (trial number, why) of fully trained candidates that did not qualify.
    """
    if rejected:
        shown = "; ".join(f"trial {number}: {why}" for number, why in rejected[:3])
        more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
        return f"No trial can be picked: {len(rejected)} fully trained candidates were rejected ({shown}{more})."
    searched = [trial for trial in trials if trial.kind is TrialKind.SEARCH]
    if not searched:
        return "No trial can be picked: the sweep has no search trial yet."
    counts = {state: sum(trial.state is state for trial in searched) for state in TrialState}
    shown = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    return f"No trial can be picked: none of {len(searched)} search trials is a fully trained candidate ({shown})."
