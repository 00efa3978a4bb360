"""A sweep's trials as a table for the terminal."""

from rich.console import Group
from rich.text import Text

from sweeps.reports.tables import trials_table
from sweeps.reports.terminal_tables import terminal_table
from sweeps.reports.text import context_line, mark_lines, state_line
from sweeps.reports.view import SweepView

# Of a table that is wider than the terminal, the first first.
_LEAVE_OUT = ("notes", "seconds", "params", "seed", "kind", "num_parameters", "fps", "macs")


def summary(view: SweepView, *, width: int) -> Group:
    """Return the trials as a table for the terminal, the picked one marked.

    Args:
        view: the sweep.
        width: columns of the terminal; what has no room is left out, the trials' settings among the first.
    """
    table = trials_table(view.trials).told(marks=view.marks, picked=view.picked.number if view.picked else None)
    return Group(
        Text(f"{view.record.name}: {state_line(view)}", style="bold"),
        terminal_table(table, width=width, leave_out=_LEAVE_OUT),
        *(Text(line, style="dim") for line in [context_line(view), *mark_lines(view)]),
    )
