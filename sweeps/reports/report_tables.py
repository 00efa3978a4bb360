"""The tables of a sweep's report."""

from collections.abc import Mapping, Sequence

from sweeps.metrics import SPLITS, has_doubts
from sweeps.reports.criteria import criteria_table
from sweeps.reports.failure_tables import events_table, failure_classes_table, failures_table, obstacles_table
from sweeps.reports.formats import PERCENT
from sweeps.reports.marks import SIGNS
from sweeps.reports.network_tables import (
    architectures,
    architectures_table,
    class_values,
    classes_table,
    gaps_table,
)
from sweeps.reports.regions import region_rows, region_table
from sweeps.reports.seed_tables import finalists_table, seeds_table, standing_table
from sweeps.reports.standing_tables import standings_table
from sweeps.reports.table import Column, Table, table_of
from sweeps.reports.tables import methods_table, trials_table
from sweeps.reports.text import measured_text
from sweeps.reports.view import MOST_SHOWN, SweepView
from sweeps.selection.seeds import repetitions
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord

MOST_LISTED = 5000  # trials in the table of a page, which is turned over

_CRITERIA_NOTE = (
    "Regret: the best target mIoU of any candidate that could have been picked (trained in full, within the constraints, "
    "rejected by no guard) minus that of this choice, both with the search's own seed; it is never negative, and the best of "
    "many on one seed is partly luck. The oracle knows no guard: where it picks what could not have been picked, it has none. "
    "Rank correlation (Spearman) of the criterion's value with target mIoU over the candidates that qualify, with its 95 % "
    "interval by Fisher's z; over fewer than ten it says nothing. Needed: how many candidates would tell one as large from "
    "none, where these do not. All of this reads target labels: it is here to be read, and steers nothing. Values are scores,"
    " or mIoU in %. Corrected: what the best by that mean IoU is worth on images that did not choose it (bootstrap over images, "
    "the choice repeated in each draw); its value on the images that chose it is too high, the more so the more candidates there "
    "were. "
    "Source validation is mean IoU; entropy, im (information maximization), bnm (batch nuclear norm), snd (soft "
    "neighborhood density) and soft_iou score predictions on unlabelled target images, atc and dev estimate from labelled "
    "source images how right they are, ensv is agreement with the majority of the candidates; higher is better."
)


def report_tables(view: SweepView) -> dict[str, Table]:
    """Return every table of a report by name.

    Args:
        view: the sweep.
    """
    marks, picked = view.marks, view.picked.number if view.picked else None
    used, comparisons = view.selection.used, view.selection.comparisons if view.seed_groups else ()
    shown = _trials(view, view.shown)
    failures = [trial for trial in view.trials if trial.failure is not None]
    with_repetitions = _with_repetitions(view)
    columns = [(label, trial, split) for split in SPLITS for label, trial in view.networks.items()]
    classes = class_values([(view.results.get(trial.number), split) for _, trial, split in columns])
    share = "share in what makes a trial one of the best"
    return {
        "criteria": criteria_table(view.criteria, own=view.spec.selection).told(marks=marks, notes=[_CRITERIA_NOTE]),
        "seeds": seeds_table(view.seed_groups, criterion=used).told(marks=with_repetitions, picked=picked),
        "finalists": finalists_table(comparisons, criterion=used).told(marks=with_repetitions),
        "standing": standing_table(view.selection.standing, criterion=used).told(marks=with_repetitions, picked=picked),
        "gaps": gaps_table(view.networks, source_only=view.source_only, upper_bound=view.upper_bound),
        "methods": methods_table(view.trials).told(marks=marks),
        "standings": standings_table(view.standings).told(marks=marks, picked=picked, notes=[_standings_note(view)]),
        "trials": shown,
        "listed": _trials(view, view.trials) if len(view.shown) < len(view.trials) <= MOST_LISTED else shown,
        "importance": table_of(
            view.importance.items(),
            [
                (Column("path", "parameter"), lambda item: item[0]),
                (Column("share", share, PERCENT, "%"), lambda item: item[1]),
            ],
            empty="Too few finished trials to say which parameters matter.",
        ),
        "classes": classes_table(classes, [(label, split) for label, _, split in columns]),
        "architectures": architectures_table(architectures(view.trials)).told(notes=[_measured_note(view)]),
        "failures": failures_table(failures[-MOST_SHOWN:]).told(marks=marks, notes=_more(view, len(failures))),
        "failure_classes": failure_classes_table(view.trials, view.events),
        "obstacles": obstacles_table(view.trials, view.spec),
        "region": region_table(region_rows(view.trials, view.spec.search)),
        "events": events_table(view.events[-MOST_SHOWN:]).told(notes=_earlier(len(view.events))),
    }


def _trials(view: SweepView, trials: Sequence[TrialRecord]) -> Table:
    told = left_out_text(view) if len(trials) < len(view.trials) else None
    return trials_table(trials, troubles=view.discriminator_troubles).told(
        marks=view.marks, picked=view.picked.number if view.picked else None, notes=[told] if told else []
    )


def _with_repetitions(view: SweepView) -> Mapping[int, Mapping[str, str]]:
    """Return the marks of finalists together with those of their repetitions, whose figures stand beside theirs."""
    found = {}
    for group in view.seed_groups:
        members = [group.trial, *repetitions(group.trial.number, view.trials)]
        meant = {sign: text for trial in reversed(members) for sign, text in view.marks[trial.number].items()}
        found[group.trial.number] = {sign: meant[sign] for sign in SIGNS if sign in meant}
    return found


def _standings_note(view: SweepView) -> str:
    # Empty where no network that is shown has told them.
    told = next((names for result in view.results.values() if (names := result.get("under_represented"))), ())
    under = f"Under-represented, by their pixels in the source: {', '.join(map(str, told))}. " if told else ""
    return (
        f"Of each method the best trial by {view.spec.selection}, trained again with the further seeds: mean, standard deviation "
        "and Student's interval of the target mean IoU at the end of training (no checkpoint is chosen). Gain: over "
        f"{_baseline_text(view)} with the same seeds. Closed: 0 is that baseline, 100 the upper bound. The last two columns are "
        "what a choice by target labels would have shown: the best of all reports of these trainings, and the best of the "
        f"method's trials in the search. {under}None chose a trial unless the selection is oracle. A method above the upper bound"
        " calls for a look: chance, where intervals are wide or missing, an upper bound that was trained too briefly, or labels "
        "that the method should not have seen. A method of which no trial qualifies has no row."
    )


def _baseline_text(view: SweepView) -> str:
    """Say what gains are told against."""
    if view.baseline is None:
        return "a baseline, which is missing"
    number = f"trial {view.baseline.number}{''.join(view.marks[view.baseline.number])}"
    if view.spec.baseline is not None:
        return f"reference {view.spec.baseline} ({number})"
    return f"the source-only training with the best source validation ({number})"


def _measured_note(view: SweepView) -> str:
    is_alone = not any(has_doubts(trial.profile) for trial in view.trials)
    how = ", alone on the device" if is_alone else "; not always alone on the device or not steadily, see ¶"
    return (
        f"Measured on {view.device}, one image at a time, {measured_text(view)}{how}, without the parts that only training needs. "
        "1 MAC = one multiplication and one addition."
    )


def left_out_text(view: SweepView) -> str | None:
    """Return where the trials are that are too many to be shown one by one; None if all are shown.

    Args:
        view: the sweep.
    """
    more = len(view.trials) - len(view.shown)
    if not more:
        return None
    return (
        f"{more:,} more trials are in the table that {suggest('export', view.record.name, '--csv', 'FILE')} writes. Shown are "
        f"{len(view.shown)}: references, repetitions, the best, those on a front, and the last. Counts and choices are of all."
    )


def _more(view: SweepView, failures: int) -> Sequence[str]:
    if failures <= MOST_SHOWN:
        return []
    export = suggest("export", view.record.name, "--csv", "FILE")
    return [f"The last {MOST_SHOWN}; {failures - MOST_SHOWN} more are in the table that {export} writes."]


def _earlier(events: int) -> Sequence[str]:
    more = events - MOST_SHOWN
    return [f"The last {MOST_SHOWN}; the ledger has the {more} earlier ones."] if more > 0 else []
