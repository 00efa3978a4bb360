"""What a search takes over from earlier sweeps.

A trial of an earlier sweep counts like one of this sweep's own if training its parameters here would be the same training: the
data and every setting that decides the result are equal, apart from the seed. Its objectives are read as this sweep names them,
and its efficiency figures are those of this sweep's device.

What was trained otherwise (fewer steps, smaller images, other data, another loss) lies on another level. In one study with this
sweep's results it would mislead: a sampler takes the level for the merit of the parameters. So of such trials the parameters alone
are taken over: the best of each earlier sweep by the first objective are tried first, and what they are worth is measured here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segda.config import TrainConfig
from segda.tunable import Scalar
from sweeps.file.auto import chosen_sampler
from sweeps.file.space import SearchSpace, identity, same
from sweeps.file.spec import SweepSpec
from sweeps.paths import leaves, value_at
from sweeps.search.translator import Translator
from sweeps.trial import TrialKind, TrialRecord, TrialState

FIRST_PER_SWEEP = 3  # enough to hit a good region, few enough that a misleading sweep costs little
_NAMED = 4  # differing settings that a note lists


@dataclass(frozen=True)
class Earlier:
    """An earlier sweep.

    Attributes:
        name: the sweep.
        trials: those of its trials that may be taken over, see `is_learnable`.
        has_other_data: whether its data sets are known to hold other files than this sweep's.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    has_other_data: bool = False


@dataclass(frozen=True)
class WarmStart:
    """What a search takes over.

    Attributes:
        learned: trials that count like this sweep's own, with parameters of its space.
        first: parameters to try first, best first within each earlier sweep.
        notes: what was taken over and what was passed over, one line per earlier sweep.
    """

    learned: tuple[TrialRecord, ...] = ()
    first: tuple[dict[str, Scalar], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fitting:
    """A trial of an earlier sweep whose parameters are in this one's space.

    Attributes:
        record: the trial, with parameters of this space and figures of this sweep's device.
        differing: settings that it was trained with otherwise.
    """

    record: TrialRecord
    differing: tuple[str, ...]


def is_learnable(record: TrialRecord) -> bool:
    """Return whether a trial of an earlier sweep may be taken over: one of the search, trained in full, and no copy."""
    return record.kind is TrialKind.SEARCH and record.state is TrialState.COMPLETE


def warm_start(
    spec: SweepSpec,
    space: SearchSpace,
    earlier: Sequence[Earlier],
    *,
    efficiency: Callable[[TrainConfig], Mapping[str, float]],
) -> WarmStart:
    """Sort out what a search can use of earlier sweeps; a function of its arguments, whatever order the trials are in.

    Args:
        spec: the sweep.
        space: its search space.
        earlier: the sweeps to learn from.
        efficiency: returns the figures of a configuration's architecture on this sweep's device.
    """
    if earlier and chosen_sampler(spec, space) == "grid":
        return WarmStart(notes=("warm start has no effect: the budget covers every combination of the search space",))
    translator = Translator(spec, space)
    learned: list[TrialRecord] = []
    first: list[dict[str, Scalar]] = []
    notes = []
    for sweep in earlier:
        fitting, reasons = _sort_out(spec, space, translator, sweep, efficiency=efficiency)
        same_training = [item.record for item in fitting if not item.differing]
        others = [item.record for item in fitting if item.differing]
        best = _best(spec, translator, others, known=[*spec.sampler.first, *first])
        learned += same_training
        first += best
        parts = [f"{len(same_training)} of {len(sweep.trials)} fully trained trials count like this sweep's own"]
        if others:
            paths = list(dict.fromkeys(path for item in fitting for path in item.differing))
            more = f" and {len(paths) - _NAMED} more settings" if len(paths) > _NAMED else ""
            listed = f"{', '.join(paths[:_NAMED])}{more}"
            parts.append(
                f"{len(others)} were trained otherwise ({listed}); of these the best {len(best)} are tried first"
            )
        parts += [f"{count} passed over: {reason}" for reason, count in reasons.items()]
        notes.append(f"warm start from {sweep.name}: {'; '.join(parts)}")
    return WarmStart(tuple(learned), tuple(first), tuple(notes))


def _sort_out(
    spec: SweepSpec,
    space: SearchSpace,
    translator: Translator,
    sweep: Earlier,
    *,
    efficiency: Callable[[TrainConfig], Mapping[str, float]],
) -> tuple[list[_Fitting], Counter[str]]:
    """Return the trials that fit, and why how many others do not."""
    fitting = []
    reasons: Counter[str] = Counter()
    for trial in sorted(sweep.trials, key=lambda record: record.number):
        params = _params_here(space, trial)
        config = None if params is None else spec.train_config(params, seed=spec.first_seed)
        if params is None or config is None or not _agrees(trial, params, config):
            reasons["outside of the search space"] += 1
            continue
        record = replace(trial, params=params, profile=dict(efficiency(config)))
        if translator.values(record) is None:
            reasons[f"without {' and '.join(item.metric for item in spec.objectives)}"] += 1
            continue
        differing = list(_differing(trial.config, config))
        if sweep.has_other_data and not any(path.startswith("data.") for path in differing):
            differing.append("files of the data sets")
        fitting.append(_Fitting(record, tuple(differing)))
    return fitting, reasons


def _params_here(space: SearchSpace, trial: TrialRecord) -> dict[str, Scalar] | None:
    """Return a trial's values of what this sweep searches, where it may have been fixed; None: the space has no such point."""
    params: dict[str, Scalar] = {}
    for item in space.parameters:
        if item.is_active(params):
            value = trial.params.get(item.path, value_at(trial.config, item.path))
            if not item.distribution.contains(value):
                return None
            params[item.path] = value
    return params


def _agrees(trial: TrialRecord, params: Mapping[str, Scalar], config: TrainConfig) -> bool:
    """Return whether what the trial's sweep searched and this one does not has the value here that it had there."""
    fixed = config.model_dump(mode="json")
    return all(same(value_at(fixed, path), value) for path, value in trial.params.items() if path not in params)


def _differing(there: Mapping[str, Any], here: TrainConfig) -> Iterator[str]:
    """Yield the paths of settings that decide the result and differ; the seed of the training is none of them."""
    for path, value in leaves(here.canonical()):
        # A setting that a trial of an older version did not have counts as another one.
        if path != "seed" and value_at(there, path) != value:
            yield path


def _best(
    spec: SweepSpec, translator: Translator, records: Sequence[TrialRecord], *, known: Sequence[Mapping[str, Scalar]]
) -> list[dict[str, Scalar]]:
    """Return the parameters of the best trials by the first objective that break no constraint and are not known already."""
    sign = -1.0 if spec.objectives[0].direction == "maximize" else 1.0
    marks = {identity(params) for params in known}
    ranked = []
    for record in records:
        values = translator.values(record)
        if values is not None and not any(amount > 0 for amount in translator.constraints(record).values()):
            ranked.append((sign * values[0], record.number, dict(record.params)))
    found: list[dict[str, Scalar]] = []
    for _, _, params in sorted(ranked, key=lambda item: item[:2]):
        if len(found) < FIRST_PER_SWEEP and identity(params) not in marks:
            marks.add(identity(params))
            found.append(params)
    return found
