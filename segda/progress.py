"""A progress bar where somebody watches: in a terminal or in a notebook, and nowhere else."""

import html
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_EVERY_SECONDS = 0.5  # a notebook's page is drawn anew at most so often


class Update(Protocol):
    """Moves a bar."""

    def __call__(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Show how much is done.

        Args:
            done: so much.
            total: of so much; None: as before.
            text: what goes on; None: as before.
        """


def notices() -> Console:
    """Return the console for progress and log, standard error: results can be piped."""
    return Console(stderr=True)


def is_watched() -> bool:
    """Return whether progress is shown to somebody."""
    console = notices()
    return console.is_terminal or console.is_jupyter


def progress_columns() -> Progress:
    """Return progress bars on standard error that vanish when done and are not drawn where nobody watches."""
    console = notices()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(text: str, *, total: float | None = None) -> Iterator[Update]:
    """Draw a progress bar while a block runs.

    Args:
        text: what goes on.
        total: how much there is to do; None: not known yet.

    Yields:
        What moves it.
    """
    if notices().is_jupyter:
        yield NotebookBar(text, total=total)
        return
    with progress_columns() as bars:
        task = bars.add_task(text, total=total)

        def update(done: float, total: float | None = None, text: str | None = None) -> None:
            bars.update(task, completed=done, total=total, description=text)

        yield update


class Output:
    """A part of a notebook's page that is replaced in place."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._handle: Any = None
        self._shown = float("-inf")

    def show(self, page: str, *, is_last: bool = False) -> None:
        """Replace what is there.

        Args:
            page: HTML.
            is_last: whether nothing comes after it; anything else may be skipped, if it comes too soon.
        """
        from IPython.display import HTML, display  # whoever has a notebook has it

        now = time.monotonic()
        if now < self._shown + _EVERY_SECONDS and not is_last:
            return
        self._shown = now
        if self._handle is None:
            self._handle = display(HTML(page), display_id=True)
        else:
            self._handle.update(HTML(page))


class NotebookBar:
    """A progress bar in a notebook."""

    def __init__(self, text: str, *, total: float | None, output: Output | None = None) -> None:
        """Draw an empty bar.

        Args:
            text: what goes on.
            total: how much there is to do.
            output: where to draw it; None: below the cell.
        """
        self._text = text
        self._total = total
        self._output = output or Output()
        self(0)

    def __call__(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Show how much is done, as `Update` says."""
        self._total = self._total if total is None else total
        self._text = self._text if text is None else text
        self._output.show(bar_html(self._text, done, self._total), is_last=done == self._total)


def bar_html(text: str, done: float, total: float | None) -> str:
    """Return a progress bar as HTML.

    Example:
        >>> bar_html("a < b", 2, 5)
        '<progress value="2" max="5"></progress> 2/5 a &lt; b'
    """
    if total is None:
        return f"<progress></progress> {html.escape(text)}"
    return f'<progress value="{done:g}" max="{total:g}"></progress> {done:g}/{total:g} {html.escape(text)}'
