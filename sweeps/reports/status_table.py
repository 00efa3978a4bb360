"""How far a sweep is, as text for a terminal or a log."""

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeps.labels import ago, duration, kind_label, settings_label
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepState
from sweeps.reports.marks import footnotes, mark
from sweeps.reports.status import MOST_ROWS, SweepStatus, read_overview
from sweeps.trial import TrialRecord, TrialState

_BAR = 10  # characters
_SETTINGS_FROM = 160  # columns of a terminal
_STYLES = {
    TrialState.RUNNING: "bold",
    TrialState.FAILED: "red",
    TrialState.PRUNED: "dim",
    TrialState.INFEASIBLE: "dim",
}


def render(status: SweepStatus, *, width: int) -> RenderableType:
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
        where = f"; `sweeps export {status.record.name} --csv FILE` has all" if len(shown) >= MOST_ROWS else ""
        parts.append(Text(f"and {hidden} more that ended earlier{where}", style="dim"))
    named = {trial.number: trial for trial in [*shown, *([status.best] if status.best is not None else [])]}
    notes = footnotes(named.values(), processes=status.spec.resources.processes, of_methods=False)
    parts += [Text(note, style="dim") for note in notes]
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
        width: columns of the terminal; the trials' settings are shown where they have room.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    optional = {
        "device": any(trial.device for trial in trials),
        "report": bool(status.reported),
        "attempts": any(trial.attempt > 1 for trial in trials),
        "last failure": any(trial.failure for trial in trials),
        "reused": any(trial.reused for trial in trials),
        "settings": width >= _SETTINGS_FROM,
    }
    titles = (
        "trial",
        "kind",
        "state",
        "",
        "step",
        status.spec.objectives[0].metric,
        "worker",
        "device",
        "time",
        "report",
    )
    for title in (*titles, "attempts", "last failure", "reused", "settings"):
        if optional.get(title, True):
            is_number = title in ("trial", "step", "time", "report", "attempts")
            table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
    for trial in trials:
        steps, value = int(trial.config["steps"]), status.value(trial)
        reported = status.reported.get(trial.number)
        cells = {
            "trial": f"{trial.number}{mark(trial, of_methods=False)}",
            "kind": kind_label(trial),
            "state": trial.state.value,
            "": bar(trial.step, steps),
            "step": f"{trial.step}/{steps}",
            "metric": "" if value is None else f"{value:.4f}",
            "worker": trial.worker or ("waiting" if trial.state is TrialState.RUNNING else ""),
            "device": trial.device or "",
            "time": _time(status, trial),
            "report": "" if reported is None else ago(status.now - reported),
            "attempts": str(trial.attempt) if trial.attempt > 1 else "",
            "last failure": trial.failure.label if trial.failure else "",
            "reused": trial.reused or "",
            "settings": settings_label(trial),
        }
        row = [Text(text) for title, text in cells.items() if optional.get(title, True)]
        table.add_row(*row, style=_STYLES.get(trial.state))
    return table


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


def overview(ledger: Ledger) -> Table:
    """Return all sweeps of a ledger and how far they are.

    Args:
        ledger: where they are.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.INFEASIBLE)
    table = Table("sweep", *(state.value for state in states), "open", "hours", "begun", "state")
    for column in table.columns[1:7]:
        column.justify = "right"
    for driver, counts in read_overview(ledger):
        record = driver.record
        ended = [counts.get(state, 0) for state in states]
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
        numbers = (str(number) for number in (*ended, sum(counts.values()) - sum(ended)))
        table.add_row(record.name, *numbers, f"{driver.seconds / 3600:.2f}", begun, driver.state)
    return table
