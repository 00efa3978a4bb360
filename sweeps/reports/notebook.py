"""What a notebook shows of a sweep: a bar that moves while it runs, and its state as a page."""

import html
import io
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.text import Text

from segda.progress import Output, bar_html
from sweeps.file.spec import SweepSpec
from sweeps.reports.heard import Heard
from sweeps.reports.marks import footnotes
from sweeps.trial import TrialRecord

WIDTH = 120  # characters


class NotebookView:
    """A progress bar over the trials, with the best one and those that run below it."""

    def __init__(self, spec: SweepSpec, trials: Iterable[TrialRecord], output: Output | None = None) -> None:
        """Begin with the trials that a resumed sweep has already.

        Args:
            spec: the sweep.
            trials: its trials.
            output: where to show it; None: below the cell.
        """
        self._heard = Heard(spec, trials)
        self._output = output or Output()
        self._failures: list[str] = []

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(is_last=True)

    def __call__(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Show an event."""
        self._heard.hear(record, message)
        if record is not None and kind in ("failed", "lost"):
            self._failures.append(f"{kind}: {self._heard.line(record)}: {message}")
        self._show()

    def _show(self, *, is_last: bool = False) -> None:
        heard = self._heard
        progress = heard.progress
        lines = [bar_html(f"{progress.spec.name}: {heard.summary()}", progress.done, progress.total)]
        if progress.best is not None:
            lines.append(f"<b>best: {html.escape(heard.line(progress.best))}</b>")
        marks = footnotes(progress.trials, processes=progress.spec.resources.processes)
        told = [*map(heard.line, heard.running), *marks, *heard.notes, *self._failures]
        self._output.show("<br>".join([*lines, *map(html.escape, told)]), is_last=is_last)


def as_text(picture: RenderableType) -> str:
    """Return what a terminal would show, without colors."""
    text = io.StringIO()
    _print(Console(file=text, width=WIDTH, force_jupyter=False), picture)
    return text.getvalue().rstrip("\n")


def as_html(picture: RenderableType) -> str:
    """Return what a terminal would show as HTML."""
    console = Console(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
    _print(console, picture)
    page = '<pre style="line-height: normal">{code}</pre>'
    return console.export_html(inline_styles=True, code_format=page)


def _print(console: Console, picture: RenderableType) -> None:
    """Print tables as wide as the page, and each line of text in one piece, so that commands can be copied."""
    for part in picture.renderables if isinstance(picture, Group) else [picture]:
        console.print(part, soft_wrap=isinstance(part, Text))
