"""A sweep's trials as a table for the terminal."""

from rich.table import Table
from rich.text import Text

from sweeps.reports.tables import trial_rows
from sweeps.reports.text import context_line, mark_lines, percent, scaled, state_line
from sweeps.reports.view import SweepView

_SETTINGS_FROM = 140  # columns of a terminal from which the settings of a trial have room beside its figures


def summary_table(view: SweepView, *, width: int) -> Table:
    """Return the trials as a table for the terminal, the picked one marked.

    Args:
        view: the sweep.
        width: columns of the terminal; the trials' settings are shown where they fit on a line.
    """
    is_wide = width >= _SETTINGS_FROM
    table = Table(
        title=f"{view.record.name}: {state_line(view)}",
        caption=Text("\n".join([context_line(view), *mark_lines(view)]), style="table.caption"),
        caption_justify="left",
    )
    for name in ("trial", "state", "method"):
        table.add_column(name, no_wrap=True)
    if is_wide:
        table.add_column("settings", overflow="fold")
    for name in ("steps", "source\nmIoU %", "target mIoU\n% (oracle)", "MACs\nG", "params\nM", "latency\nms", "fps"):
        table.add_column(name, justify="right", no_wrap=True)
    number = view.picked.number if view.picked else None
    for row in trial_rows(view.trials):
        is_picked = row.number == number
        cells = (
            f"{row.number}{row.mark}" + (" ★" if is_picked else ""),
            row.state.value,
            row.method if row.kind == "search" else f"{row.method}\n({row.kind})",
            *([f"{row.params}, seed {row.seed}"] if is_wide else []),
            str(row.steps),
            percent(row.source_miou),
            percent(row.target_miou),
            scaled(row.macs, 1e-9),
            scaled(row.num_parameters, 1e-6),
            scaled(row.latency_ms),
            scaled(row.fps),
        )
        # As text, because names and values may have brackets, which would be taken for styles.
        table.add_row(*map(Text, cells), style="bold" if is_picked else None)
    return table
