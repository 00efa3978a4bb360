"""Which columns of a table have room beside each other: a figure is shown whole or not at all."""

import textwrap
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

_GAP = 2  # between two columns of a table without lines
_ELLIPSIS = "…"


def fitting(columns: Mapping[str, Sequence[str]], *, width: int, leave_out: Sequence[str]) -> list[str]:
    """Return the titles of those columns that fit beside each other.

    Args:
        columns: title -> cells, from left to right.
        width: characters of a line.
        leave_out: titles of those that may be missing, the first to go first.

    Example:
        >>> fitting({"trial": ["0"], "worker": ["node7:123"], "miou": ["0.5000"]}, width=20, leave_out=["worker"])
        ['trial', 'miou']
    """
    shown = list(columns)
    for title in leave_out:
        if needed(columns, shown) <= width:
            break
        if title in shown:
            shown.remove(title)
    return shown


def needed(columns: Mapping[str, Sequence[str]], shown: Sequence[str]) -> int:
    """Return how many characters columns take beside each other.

    Args:
        columns: title -> cells.
        shown: titles of those that count.
    """
    return sum(width_of(title, columns[title]) for title in shown) + _GAP * max(0, len(shown) - 1)


def width_of(title: str, cells: Sequence[str]) -> int:
    """Return how many characters a column takes.

    Args:
        title: in its first line.
        cells: below it.
    """
    return max(map(cell_len, (title, *cells)))


def wrapped(heading: str, cells: Sequence[str]) -> list[str]:
    """Return a heading in as many lines as make it no wider than what stands below it, if its words let it.

    Args:
        heading: of a column.
        cells: below it.

    Example:
        >>> wrapped("target mIoU % (oracle)", ["45.0"])
        ['target', 'mIoU %', '(oracle)']
    """
    room = max(width_of("", cells), *map(cell_len, ("", *heading.split())))
    return textwrap.wrap(heading, max(room, 1), break_long_words=False, break_on_hyphens=False)


def shortened_within(name: str, width: int) -> str:
    """Return a name that is too wide without its middle: beginning and end are what tells names apart.

    Args:
        name: of a metric, a sweep, ...
        width: characters that it may have, at least 1.

    Example:
        >>> shortened_within("source/val/miou", 9), shortened_within("macs", 9)
        ('sour…miou', 'macs')
    """
    if cell_len(name) <= width:
        return name
    rest = width - cell_len(_ELLIPSIS)
    return name[: rest - rest // 2] + _ELLIPSIS + (name[-(rest // 2) :] if rest // 2 else "")
