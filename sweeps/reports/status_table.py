"""How far a sweep is, as text for a terminal or a log."""

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeps.labels import ago, duration, kind_label, settings_label
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepState
from sweeps.reports.fitting import fitting, needed, shortened_within, width_of
from sweeps.reports.marks import footnotes, mark
from sweeps.reports.status import MOST_ROWS, SweepStatus, read_overview
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord, TrialState

_BAR = 10  # characters
_NUMBERS = frozenset({"trial", "step", "time", "report", "attempts"})
# There only if some trial has something to say there.
_OPTIONAL = frozenset({"device", "report", "attempts", "last failure", "reused"})
# Of a table that is wider than the terminal, the first first. What is left then tells how far which trial is.
_LEAVE_OUT = (
    *("settings", "worker", "device", "kind", "", "report", "attempts", "reused", "last failure"),
    "time",
)
_LEAVE_OUT_OF_OVERVIEW = ("begun", "infeasible", "hours", "failed", "pruned")
_ROOM_OF_STATES = 26  # characters, the gap before them included: the longest word of a state has room
_SHORTEST_NAME = 12  # characters of a sweep's name
_STYLES = {
    TrialState.RUNNING: "bold",
    TrialState.FAILED: "red",
    TrialState.PRUNED: "dim",
    TrialState.INFEASIBLE: "dim",
}


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


def trial_table(status: SweepStatus, trials: Sequence[TrialRecord], *, width: int) -> Table:
    """Return the trials as a table; columns about what went wrong are there only if something did.

    Args:
        status: the sweep.
        trials: those to show.
        width: columns of the terminal. What has no room is left out: the settings first, then worker, device and kind, then the
            bar and what `_LEAVE_OUT` names further. No figure and no state is ever cut.
    """
    objective = status.spec.objectives[0].metric
    rows = [_cells(status, trial, objective) for trial in trials]
    columns = {title: [row[title] for row in rows] for title in rows[0]}
    shown = fitting(
        {title: cells for title, cells in columns.items() if title not in _OPTIONAL or any(cells)},
        width=width,
        leave_out=_LEAVE_OUT,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in shown:
        # Of a name, and only where all that may be left out is: figures and states need their room.
        room = width - needed(columns, shown) + width_of(title, columns[title])
        header = shortened_within(title, max(room, width_of("", columns[title]))) if title == objective else title
        table.add_column(header, justify="right" if title in _NUMBERS else "left", no_wrap=True)
    for trial, row in zip(trials, rows, strict=True):
        table.add_row(*(Text(row[title]) for title in shown), style=_STYLES.get(trial.state))
    return table


def _cells(status: SweepStatus, trial: TrialRecord, objective: str) -> dict[str, str]:
    """Return what there is to show of a trial, by the titles of the columns from left to right."""
    steps, value = int(trial.config["steps"]), status.value(trial)
    reported = status.reported.get(trial.number)
    return {
        "trial": f"{trial.number}{mark(trial, of_methods=False)}",
        "kind": kind_label(trial),
        "state": trial.state.value,
        "": bar(trial.step, steps),
        "step": f"{trial.step}/{steps}",
        objective: "" if value is None else f"{value:.4f}",
        "worker": trial.worker or ("waiting" if trial.state is TrialState.RUNNING else ""),
        "device": trial.device or "",
        "time": _time(status, trial),
        "report": "" if reported is None else ago(status.now - reported),
        "attempts": str(trial.attempt) if trial.attempt > 1 else "",
        "last failure": trial.failure.label if trial.failure else "",
        "reused": trial.reused or "",
        "settings": settings_label(trial),
    }


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
    columns: dict[str, list[str]] = {
        title: [] for title in ("sweep", *(state.value for state in states), "open", "hours", "begun", "state")
    }
    remedies = []
    for driver, counts in read_overview(ledger):
        record = driver.record
        ended = [counts.get(state, 0) for state in states]
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
        numbers = (str(number) for number in (*ended, sum(counts.values()) - sum(ended)))
        row = (record.name, *numbers, f"{driver.seconds / 3600:.2f}", begun, driver.condition)
        for cells, cell in zip(columns.values(), row, strict=True):
            cells.append(cell)
        if driver.remedy is not None:
            remedies.append(Text(f"{record.name}: {driver.remedy}"))
    others = {title: cells for title, cells in columns.items() if title != "state"}
    shown = fitting(others, width=width - _ROOM_OF_STATES, leave_out=_LEAVE_OUT_OF_OVERVIEW)
    table = Table(box=None, pad_edge=False, header_style="bold")
    room = width - _ROOM_OF_STATES - needed(columns, shown) + width_of("sweep", columns["sweep"])
    columns["sweep"] = [shortened_within(name, max(room, _SHORTEST_NAME)) for name in columns["sweep"]]
    for title in shown:
        table.add_column(title, justify="left" if title in ("sweep", "begun") else "right", no_wrap=True)
    table.add_column("state")  # words, which go on in the next line
    for row in zip(*(columns[title] for title in (*shown, "state")), strict=True):
        table.add_row(*map(Text, row))
    return Group(table, *remedies)
