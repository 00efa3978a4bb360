"""What failed, and what was done about it: tables over trial records and events."""

from collections.abc import Iterable
from typing import Any

from segda.batch_norm import MIN_IMAGES_AT_ONCE
from sweeps.execution.retries import retries
from sweeps.failures import POLICIES, FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.labels import model_label, settings_label
from sweeps.ledger.records import Event
from sweeps.paths import value_at
from sweeps.reports.columns import INPUT, NUMBER, NUMBERS
from sweeps.reports.formats import DATE, PROSE, STATE, WHOLE, WORDS
from sweeps.reports.marks import target_labels
from sweeps.reports.table import Column, Table, table_of
from sweeps.trial import TrialRecord, TrialState


def failures_table(trials: Iterable[TrialRecord]) -> Table:
    """Return the trials that failed once at least, and what happened.

    Args:
        trials: those that have a failure.
    """
    return table_of(
        trials,
        [
            (NUMBER, lambda trial: trial.number),
            (Column("state", "state", STATE), lambda trial: trial.state.value),
            (Column("failure", "class", WORDS), lambda trial: trial.failure and trial.failure.value),
            (Column("attempts", "attempts", WHOLE), lambda trial: trial.attempt),
            (Column("settings", "parameters", PROSE), settings_label),
            (Column("error", "what happened", PROSE), lambda trial: trial.error or ""),
            (Column("where", "where"), lambda trial: ", ".join(filter(None, (trial.worker, trial.device)))),
            (Column("notes", "notes", PROSE), history),
        ],
        empty="No trial has failed.",
    )


def events_table(events: Iterable[Event]) -> Table:
    """Return what happened to a sweep.

    Args:
        events: in their order.
    """
    return table_of(
        events,
        [
            (Column("time", "time", DATE), lambda event: event.timestamp),
            (Column("kind", "kind"), lambda event: event.kind),
            (Column("trial", "trial", WHOLE), lambda event: event.number),
            (Column("message", "message", PROSE), lambda event: event.message),
        ],
        empty="None.",
    )


def obstacles_table(trials: Iterable[TrialRecord], spec: SweepSpec) -> Table:
    """Return the architectures that no trial was trained with, with the constraint that each breaks.

    Args:
        trials: records of one sweep.
        spec: the sweep.
    """
    groups: dict[tuple[str, tuple[Any, Any], str], list[int]] = {}
    for trial in trials:
        if trial.state is TrialState.INFEASIBLE:
            size = value_at(trial.config, "data.height"), value_at(trial.config, "data.width")
            why = trial.error or spec.broken_constraint(trial.profile) or "unknown"
            groups.setdefault((model_label(trial), size, why), []).append(trial.number)
    return table_of(
        sorted(groups.items(), key=lambda item: (-len(item[1]), item[0][0])),
        [
            (Column("network", "network"), lambda item: item[0][0]),
            (INPUT, lambda item: item[0][1]),
            (Column("why", "why", PROSE), lambda item: item[0][2]),
            (Column("proposals", "proposals", WHOLE), lambda item: len(item[1])),
            (NUMBERS, lambda item: tuple(sorted(item[1]))),
        ],
    )


def failure_classes_table(trials: Iterable[TrialRecord], events: Iterable[Event]) -> Table:
    """Return how often each class of failure came up and what was done, the most frequent first.

    Args:
        trials: records of one sweep.
        events: what happened to it.
    """
    retried: dict[FailureClass, list[int]] = {}
    for number, failure, _ in retries(events):
        retried.setdefault(failure, []).append(number)
    given_up: dict[FailureClass, list[int]] = {}
    for trial in trials:
        if trial.state is TrialState.FAILED and trial.failure is not None:
            given_up.setdefault(trial.failure, []).append(trial.number)
    found = [(failure, retried.get(failure, []), given_up.get(failure, [])) for failure in FailureClass]
    return table_of(
        sorted((item for item in found if item[1] or item[2]), key=lambda item: -len(item[1]) - len(item[2])),
        [
            (Column("failure", "class", WORDS), lambda item: item[0].value),
            (Column("attempts", "failed attempts", WHOLE), lambda item: len(item[1]) + len(item[2])),
            (Column("trials", "of trials", WHOLE), lambda item: len({*item[1], *item[2]})),
            (Column("retried", "tried again", WHOLE), lambda item: len(item[1])),
            (Column("given_up", "given up", WHOLE), lambda item: len(item[2])),
            (Column("policy", "what is done about it", PROSE), lambda item: policy_text(item[0])),
        ],
    )


def policy_text(failure: FailureClass) -> str:
    """Return what is done about a class of failure, for people.

    Example:
        >>> policy_text(FailureClass.DIVERGED)
        'not tried again; the sampler learns to avoid it'
    """
    policy = POLICIES[failure]
    if failure is FailureClass.OUT_OF_MEMORY:
        again = f"tried again with fewer images at once, at least {MIN_IMAGES_AT_ONCE}"
    elif policy.retries is None:
        again = "tried again without limit"
    elif policy.retries:
        times = "once" if policy.retries == 1 else f"{policy.retries} times"
        again = f"tried again up to {times} in a row" + (
            "" if policy.blames_configuration else ", in an outage for longer"
        )
    else:
        again = "not tried again"
    told = (
        "the sampler learns to avoid it"
        if policy.blames_configuration
        else "says nothing about the parameters, spends no budget, and is tried again when the sweep is resumed"
    )
    return f"{again}; {told}"


def history(trial: TrialRecord) -> str:
    """Return what was out of the ordinary in how a trial came by its result, for people; empty if nothing was."""
    notes = []
    if trial.reused is not None:
        notes.append(f"result of {trial.reused}")
    if trial.attempt > 1:
        notes.append(f"{trial.attempt} attempts")
    if trial.micro_batch is not None:
        notes.append(f"micro-batches of {trial.micro_batch}")
    labels = target_labels(trial)
    if labels:
        notes.append(f"labels of {labels}")
    return ", ".join(notes)
