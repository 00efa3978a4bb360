"""Where text for people goes."""

import sys

from rich.console import Console

_WIDTH_OF_FILES = 200


def console() -> Console:
    """Return a console; a file or a pipe gets tables as wide as they want to be."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_FILES)
