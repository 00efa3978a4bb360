"""How far a sweep is, as text for a terminal or a log."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as Picture
from rich.text import Text

from sweeps.labels import ago, duration, kind_label, settings_label
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepState
from sweeps.reports.formats import HUNDREDTHS, PROSE, TRIAL, WHOLE, Format
from sweeps.reports.marks import footnotes, mark, meanings
from sweeps.reports.status import MOST_ROWS, DriverStatus, SweepStatus, read_overview
from sweeps.reports.table import Column, table_of
from sweeps.reports.terminal_tables import terminal_table
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord, TrialState

_BAR = 10  # characters
_FIGURE = Format(lambda value: f"{value:.4f}")
_RIGHT = Format(str)
# There only if some trial has something to say there.
_OPTIONAL = frozenset({"device", "report", "attempts", "failure", "reused"})
# Of a table that is wider than the terminal, the first first. What is left then tells how far which trial is.
_LEAVE_OUT = ("settings", "worker", "device", "kind", "bar", "report", "attempts", "reused", "failure", "time")
_LEAVE_OUT_OF_OVERVIEW = ("begun", "infeasible", "hours", "failed", "pruned")


def render(status: SweepStatus, *, width: int) -> Group:
    """Return a sweep's state and its trials, to be printed.

    Args:
        status: the sweep.
        width: columns of the terminal.
    """
    known = {trial.number: trial for trial in status.trials}
    shown = [known[number] for number in status.shown]
    parts: list[RenderableType] = [Text(line) for line in header_lines(status)]
    if shown:
        parts.append(trial_table(status, shown, width=width))
    hidden = len(status.trials) - len(shown)
    if hidden:
        where = f"; {suggest('export', status.record.name, '--csv', 'FILE')} has all" if len(shown) >= MOST_ROWS else ""
        parts.append(Text(f"and {hidden} more that ended earlier{where}", style="dim"))
    named = {trial.number: trial for trial in [*shown, *([status.best] if status.best is not None else [])]}
    notes = footnotes(named.values(), processes=status.spec.resources.processes, of_methods=False)
    parts += [Text(note, style="dim") for note in notes]
    parts.append(Text(f"every trial side by side in MLflow: {suggest('ui', status.record.name)}", style="dim"))
    return Group(*parts)


def header_lines(status: SweepStatus) -> list[str]:
    """Return what there is to say of the whole sweep, in lines."""
    # Fewer than planned end a sweep where a method has no finalist.
    of_total = "" if status.record.state is SweepState.FINISHED else f" of {status.total}"
    counts = [f"{status.done}{of_total} trials ended"]
    counts += [f"{number} {state.value}" for state in TrialState if (number := status.count(state))]
    aside = sum(trial.is_set_aside for trial in status.trials)
    if aside:
        counts.append(f"{aside} failed by the machines, which count for nothing")
    budget = status.spec.budget.hours
    hours = f"{status.seconds / 3600:.2f} h" + (f" of {budget:g} h" if budget is not None else "")
    worker_hours = sum(trial.seconds for trial in status.trials) / 3600
    times = [f"{hours} used", f"{worker_hours:.2f} worker hours"]
    prices = status.prices
    if prices is not None and status.cost is not None:
        limit = status.spec.budget.cost
        times.append(prices.text(status.cost) + (f" of {limit:g}" if limit is not None else "") + " spent")
    left = status.seconds_left
    if left is not None:
        times.append(f"about {duration(left)} left")
    lines = [f"{status.record.name}: {status.state}", ", ".join(counts), ", ".join(times)]
    if status.trouble is not None:
        lines.append(status.trouble)
    best, objective = status.best, status.spec.objectives[0]
    if best is not None:
        lines.append(
            f"best so far: trial {best.number}{mark(best, of_methods=False)}, {objective.metric} {status.value(best):.4g} "
            f"({settings_label(best)})"
        )
    return lines


def trial_table(status: SweepStatus, trials: Sequence[TrialRecord], *, width: int) -> Picture:
    """Return the trials as a table; columns about what went wrong are there only if something did.

    Args:
        status: the sweep.
        trials: those to show.
        width: columns of the terminal. What has no room is left out: the settings first, then worker, device and kind, then the
            bar and what `_LEAVE_OUT` names further. No figure and no state is ever cut.
    """
    steps = {trial.number: int(trial.config["steps"]) for trial in trials}
    objective = status.spec.objectives[0].metric
    columns: list[tuple[Column, Callable[[TrialRecord], Any]]] = [
        (Column("trial", "trial", TRIAL), lambda trial: trial.number),
        (Column("kind", "kind"), kind_label),
        (Column("state", "state"), lambda trial: trial.state.value),
        (Column("bar", ""), lambda trial: bar(trial.step, steps[trial.number])),
        (Column("step", "step", _RIGHT), lambda trial: f"{trial.step}/{steps[trial.number]}"),
        (Column("value", objective, _FIGURE), status.value),
        (Column("worker", "worker"), lambda trial: trial.worker or ("waiting" if _is_running(trial) else "")),
        (Column("device", "device"), lambda trial: trial.device or ""),
        (Column("time", "time", _RIGHT), lambda trial: _time(status, trial)),
        (Column("report", "report", _RIGHT), lambda trial: _reported(status, trial)),
        (Column("attempts", "attempts", _RIGHT), lambda trial: trial.attempt if trial.attempt > 1 else ""),
        (Column("failure", "last failure"), lambda trial: trial.failure.label if trial.failure else ""),
        (Column("reused", "reused"), lambda trial: trial.reused or ""),
        (Column("settings", "settings"), settings_label),
    ]
    table = table_of(
        trials,
        [item for item in columns if item[0].key not in _OPTIONAL or any(map(item[1], trials))],
        style=lambda trial: trial.state.value,
        marks=meanings(trials, processes=status.spec.resources.processes, of_methods=False),
    )
    return terminal_table(table, width=width, leave_out=_LEAVE_OUT, shorten="value")


def _is_running(trial: TrialRecord) -> bool:
    return trial.state is TrialState.RUNNING


def _reported(status: SweepStatus, trial: TrialRecord) -> str:
    reported = status.reported.get(trial.number)
    return "" if reported is None else ago(status.now - reported)


def bar(done: int, total: int) -> str:
    """Return a bar of ten characters that a log shows too.

    Example:
        >>> bar(5, 10), bar(0, 0)
        ('█████░░░░░', '░░░░░░░░░░')
    """
    filled = min(_BAR, _BAR * done // total) if total else 0
    return "█" * filled + "░" * (_BAR - filled)


def _time(status: SweepStatus, trial: TrialRecord) -> str:
    """Return how long workers have had a trial; of a running one, how long ago it was first started."""
    if trial.state is TrialState.RUNNING and trial.started is not None:
        return duration(max(0.0, status.now - trial.started))
    if trial.seconds:
        return duration(trial.seconds)
    return ""


def overview(ledger: Ledger, *, width: int) -> Group:
    """Return all sweeps of a ledger and how far they are, and below them how to go on with those that are not done.

    Args:
        ledger: where they are.
        width: columns of the terminal.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.INFEASIBLE)
    found = read_overview(ledger)

    def is_open(item: tuple[DriverStatus, Mapping[TrialState, int]]) -> int:
        return sum(item[1].values()) - sum(item[1].get(state, 0) for state in states)

    table = table_of(
        found,
        [
            (Column("sweep", "sweep"), lambda item: item[0].record.name),
            *(
                (Column(state.value, state.value, WHOLE), lambda item, state=state: item[1].get(state, 0))
                for state in states
            ),
            (Column("open", "open", WHOLE), is_open),
            (Column("hours", "hours", HUNDREDTHS), lambda item: item[0].seconds / 3600),
            (Column("begun", "begun"), lambda item: _local(item[0].record.created)),
            (Column("state", "state", PROSE), lambda item: item[0].condition),
        ],
    )
    remedies = [Text(f"{item.record.name}: {item.remedy}") for item, _ in found if item.remedy is not None]
    return Group(terminal_table(table, width=width, leave_out=_LEAVE_OUT_OF_OVERVIEW, shorten="sweep"), *remedies)


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
