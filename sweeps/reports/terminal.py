"""Where text for people goes."""

import sys

from rich.console import Console, Group
from rich.text import Text

_WIDTH_OF_FILES = 200
_WIDEST = 2000  # of a table in a file, which leaves nothing out


def console() -> Console:
    """Return a console; a file or a pipe gets tables as wide as they want to be."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_FILES)


def width_of(shown: Console) -> int:
    """Return for how many columns a table is made up: those of a terminal; a file or a pipe has as many as it takes.

    Args:
        shown: where the table goes.
    """
    return shown.width if shown.is_terminal else _WIDEST


def print_whole(shown: Console, picture: Group) -> None:
    """Print tables as they were made up, and each line of text in one piece: the terminal wraps it, and commands can be copied.

    Args:
        shown: where to print.
        picture: tables and lines.
    """
    place = shown if shown.is_terminal else Console(file=shown.file, width=_WIDEST)
    for part in picture.renderables:
        place.print(part, soft_wrap=isinstance(part, Text))
