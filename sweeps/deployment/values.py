"""What each artefact is worth by the sweep's own criterion.

A file says classes. Mean IoU on the source's validation split and agreement with the majority of the candidates (`ensv`) follow
from these, so they are computed anew of each artefact; scores of validators need probabilities, so an artefact has those of the
network that it was made of. What target labels say is a criterion only of sweeps that chose by them (`selection: oracle`).

An artefact that collapsed on the target must not be chosen, whatever its figure (`sweeps.selection.guards`). That it lost much on
the source is no collapse: it is what pruning costs, and the figure says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segda.target_prediction import TARGET_PREDICTION, TargetPrediction, read_target_prediction
from sweeps.deployment.artefacts import Artefact
from sweeps.metrics import CRITERIA, TARGET_MIOU, finite, is_validator
from sweeps.selection.guards import Guard
from sweeps.selection.pool import with_pool_figures
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord


@dataclass(frozen=True)
class Value:
    """What an artefact is worth.

    Attributes:
        value: what it is ranked by: the candidate's worth, and what the artefact gains or loses against its own figure. None: it
            has no figure.
        figure: of this artefact, by the criterion, with the seed of the search.
        is_of_network: whether the figure is that of the network that it was made of, since a file cannot tell it.
        collapse: why it must not be chosen whatever its figure, or None.
    """

    value: float | None
    figure: float | None
    is_of_network: bool
    collapse: str | None


def values_of(
    artefacts: Sequence[Artefact], trials: Sequence[TrialRecord], *, criterion: str, store: Store
) -> list[Value]:
    """Return what artefacts are worth.

    Args:
        artefacts: those that there are.
        trials: records of the sweep, without artefacts.
        criterion: name in `sweeps.metrics.CRITERIA`.
        store: has what trials predicted.
    """
    metric = CRITERIA[criterion]
    guard = None if criterion == "oracle" else Guard(trials)
    free = 1 + max(trial.number for trial in trials)
    records = [_as_trial(artefact, free + place) for place, artefact in enumerate(artefacts)]
    if criterion == "ensv":
        records = _compared(records, artefacts, trials, store)
    found = []
    for artefact, record in zip(artefacts, records, strict=True):
        figure, candidate = finite(record.metrics, metric), artefact.candidate
        found.append(
            Value(
                value=None if figure is None else candidate.worth + (figure - candidate.own),
                figure=figure,
                is_of_network=is_validator(metric),
                collapse=None if guard is None else guard.target_collapse(record),
            )
        )
    return found


def _as_trial(artefact: Artefact, number: int) -> TrialRecord:
    """Return an artefact as a repetition of its trial: it is compared with the majority, and has no vote."""
    trial = artefact.candidate.trial
    # Figures beside others and on target labels are those of the network; an artefact has its own or none.
    metrics = {name: value for name, value in trial.metrics.items() if name != TARGET_MIOU}
    metrics |= {**artefact.network_metrics, **artefact.metrics}
    if artefact.oracle_miou is not None:
        metrics[TARGET_MIOU] = artefact.oracle_miou
    return replace(trial, number=number, kind=TrialKind.REPLICATE, parent=trial.number, metrics=metrics)


def _compared(
    records: Sequence[TrialRecord], artefacts: Sequence[Artefact], trials: Sequence[TrialRecord], store: Store
) -> list[TrialRecord]:
    own = {record.number: artefact.prediction for record, artefact in zip(records, artefacts, strict=True)}

    def read(trial: TrialRecord) -> TargetPrediction | None:
        if trial.number in own:
            return own[trial.number]
        return _prediction(store.trial(trial) / TARGET_PREDICTION)

    without = [
        replace(record, metrics={name: value for name, value in record.metrics.items() if name != CRITERIA["ensv"]})
        for record in records
    ]
    return with_pool_figures([*trials, *without], read)[len(trials) :]


def _prediction(path: Path) -> TargetPrediction | None:
    try:
        return read_target_prediction(path)
    except (FileNotFoundError, ValueError):  # who reads a sweep was told already (`sweeps.execution.predictions`)
        return None
