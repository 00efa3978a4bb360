"""Tables in a terminal or a log: a figure is shown whole or not at all."""

from collections.abc import Sequence

from rich.table import Table as Picture
from rich.text import Text

from sweeps.reports.fitting import fitting, needed, shortened_within, width_of, wrapped
from sweeps.reports.table import Table

_STYLES = {"picked": "bold", "running": "bold", "failed": "red", "pruned": "dim", "infeasible": "dim"}
_LONG = 24  # characters that a column of long texts has at least, if it needs them; they go on in the next line
_SHORTEST = 12  # characters of a name that is shortened


def terminal_table(table: Table, *, width: int, leave_out: Sequence[str] = (), shorten: str | None = None) -> Picture:
    """Return a table, to be printed.

    Args:
        table: what it says.
        width: columns of the terminal.
        leave_out: keys of columns that may be missing where there is no room, the first to go first.
        shorten: key of the column that loses the middle of its texts where there is still none: of its heading alone if they are
            figures.
    """
    columns = {item.key: item for item in table.columns}
    cells = {key: [table.text(row, index) for row in range(len(table.rows))] for index, key in enumerate(columns)}
    headings = {key: wrapped(item.heading, cells[key]) for key, item in columns.items()}
    # As wide as they must be.
    taken = {
        key: [text[:_LONG] for text in cells[key]] if item.format.look == "text" else [*headings[key], *cells[key]]
        for key, item in columns.items()
    }
    shown = fitting(taken, width=width, leave_out=leave_out)
    if shorten is not None:
        others = [key for key in shown if key != shorten]
        least = width_of("", cells[shorten]) if columns[shorten].format.is_number else _SHORTEST
        room = max(width - needed(taken, [*others, shorten]) + width_of("", taken[shorten]), least)
        headings[shorten] = [shortened_within(line, room) for line in headings[shorten]]
        if not columns[shorten].format.is_number:
            cells[shorten] = [shortened_within(text, room) for text in cells[shorten]]
    picture = Picture(box=None, pad_edge=False, header_style="bold")
    for key in shown:
        item = columns[key]
        picture.add_column(
            "\n".join(headings[key]),
            justify="right" if item.format.is_number else "left",
            no_wrap=item.format.look != "text",
            overflow="fold" if item.format.look == "text" else "ellipsis",
        )
    for row in range(len(table.rows)):
        # As text, because names and values may have brackets, which would be taken for styles.
        picture.add_row(*(Text(cells[key][row]) for key in shown), style=_STYLES.get(table.style(row)))
    return picture
