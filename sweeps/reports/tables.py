"""What a sweep found, as tables over trial records: trials, and methods."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from sweeps.labels import kind_label, method_label, short_params
from sweeps.metrics import SOURCE_MIOU, TARGET_MIOU
from sweeps.reports.columns import HOW_MANY, SOURCE, TARGET, cost, source, target
from sweeps.reports.failure_tables import history
from sweeps.reports.formats import DURATION, FIGURE, NAME, PERCENT, PROSE, STATE, TRIAL, WHOLE, in_units
from sweeps.reports.marks import RECONSTRUCTED, is_reconstruction
from sweeps.reports.table import OFF, Column, Table, table_of
from sweeps.selection.analysis import best_by
from sweeps.trial import TrialKind, TrialRecord, TrialState


def trials_table(trials: Iterable[TrialRecord], *, troubles: Mapping[int, str] = MappingProxyType({})) -> Table:
    """Return all trials in the order of their numbers; a figure that does not exist is None.

    Args:
        trials: records of one sweep.
        troubles: number of trial -> what is wrong with its discriminator.
    """
    return table_of(
        sorted(trials, key=lambda trial: trial.number),
        [
            (Column("number", "trial", TRIAL), lambda trial: trial.number),
            (Column("kind", "kind"), kind_label),
            (Column("state", "state", STATE), lambda trial: trial.state.value),
            (Column("method", "method", NAME), method_label),
            (Column("params", "parameters", PROSE), lambda trial: short_params(trial.params)),
            (Column("seed", "seed", WHOLE), lambda trial: trial.seed),
            (Column("steps", "steps", WHOLE), lambda trial: trial.step),
            (SOURCE, source),
            (TARGET, target),
            (Column("macs", "MACs", in_units(1e-9), "G"), cost("macs")),
            (Column("num_parameters", "params", in_units(1e-6), "M"), cost("num_parameters")),
            (Column("latency_ms", "latency", FIGURE, "ms"), cost("latency_ms")),
            (Column("fps", "fps", FIGURE), cost("fps")),
            (Column("seconds", "time", DURATION, "on workers"), lambda trial: trial.seconds or None),
            (Column("notes", "notes", PROSE), lambda trial: _remarks(trial, troubles)),
        ],
        style=lambda trial: "" if trial.state is TrialState.COMPLETE else OFF,
        notes=[
            "★ picked. Metrics of trials that are not complete are their last report, at fewer steps, and enter no comparison."
        ],
        anchor="trial",
        empty="No trial yet.",
    )


def _remarks(trial: TrialRecord, troubles: Mapping[int, str]) -> str:
    return "; ".join(filter(None, (history(trial), troubles.get(trial.number))))


def methods_table(trials: Iterable[TrialRecord]) -> Table:
    """Return, per method, its share of the budget and its best trial by source validation.

    The counts say whether methods were given equal effort; where they were not, comparing best trials means little.

    Args:
        trials: records of one sweep, of which those of the search count.
    """
    members: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.kind is TrialKind.SEARCH:
            label = method_label(trial) + (RECONSTRUCTED if is_reconstruction(trial) else "")
            members.setdefault(label, []).append(trial)
    items = [(label, group, best_by(group, SOURCE_MIOU)) for label, group in sorted(members.items())]
    ends = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE, TrialState.FAILED)
    return table_of(
        items,
        [
            (Column("method", "method"), lambda item: item[0]),
            (HOW_MANY, lambda item: len(item[1])),
            *(
                (
                    Column(end.value, end.value, WHOLE),
                    lambda item, end=end: sum(trial.state is end for trial in item[1]),
                )
                for end in ends
            ),
            (Column("steps", "steps", WHOLE), lambda item: sum(trial.step for trial in item[1])),
            (
                Column("best", "best trial", TRIAL, note="by source validation"),
                lambda item: item[2].number if item[2] else None,
            ),
            (replace(SOURCE, title="its source mIoU"), lambda item: source(item[2]) if item[2] else None),
            (replace(TARGET, title="its target mIoU"), lambda item: target(item[2]) if item[2] else None),
            (
                Column("best_target_miou", "best target mIoU", PERCENT, "%", "oracle choice", is_oracle=True),
                lambda item: target(found) if (found := best_by(item[1], TARGET_MIOU)) else None,
            ),
        ],
        notes=["Search trials only. The counts say whether the methods had equal shares of the budget."],
        empty="No search trial yet.",
    )
