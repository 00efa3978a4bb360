"""What a person sees while a sweep runs: a live table in a terminal, a bar in a notebook, one line per event elsewhere."""

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.file.spec import SweepSpec
from sweeps.labels import settings_label
from sweeps.reports import terminal
from sweeps.reports.heard import Heard
from sweeps.reports.marks import footnotes, mark
from sweeps.reports.notebook import NotebookView
from sweeps.trial import TrialRecord


class View(Protocol):
    """Hears what happens to a sweep and shows it; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Show an event."""


def view(spec: SweepSpec, trials: list[TrialRecord]) -> View:
    """Return the view that fits whoever watches.

    Args:
        spec: the sweep.
        trials: what it has already.
    """
    console = terminal.console()
    if console.is_jupyter:
        return NotebookView(spec, trials)
    return LiveView(spec, trials, console) if console.is_terminal else LineView(spec, trials, console)


class LineView:
    """One line per event, for logs and pipes."""

    def __init__(self, spec: SweepSpec, trials: Iterable[TrialRecord], console: Console) -> None:
        """Begin with the trials that a resumed sweep has already."""
        self._heard = Heard(spec, trials)
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say(self._heard.summary())

    def __call__(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Show an event."""
        self._heard.hear(record, message)
        if record is None:
            self._say(message)
            return
        where = f" on {record.worker}" if kind == "started" else ""
        self._say(f"{kind:<10} {self._heard.line(record)}{where}" + (f": {message}" if message else ""))

    def _say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A table that is redrawn in place."""

    def __init__(self, spec: SweepSpec, trials: Iterable[TrialRecord], console: Console) -> None:
        """Begin with the trials that a resumed sweep has already."""
        self._heard = Heard(spec, trials)
        self._console = console
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Show an event."""
        with self._lock:
            self._heard.hear(record, message)
        if record is not None and kind in ("failed", "lost"):
            self._console.print(Text(f"{kind}: {self._heard.line(record)}: {message}", style="red"))

    def _render(self) -> RenderableType:
        with self._lock:
            heard = self._heard
            parts: list[RenderableType] = [Text(f"{heard.progress.spec.name}: {heard.summary()}")]
            best = heard.progress.best
            if best is not None:
                parts.append(Text(f"best: {heard.line(best)}", style="bold green"))
            parts.append(self._table(heard.running))
            shown = {trial.number: trial for trial in [*heard.running, *([best] if best is not None else [])]}
            notes = footnotes(shown.values(), processes=heard.progress.spec.resources.processes)
            parts += [Text(note, style="dim") for note in (*notes, *heard.notes)]
            return Group(*parts)

    def _table(self, running: list[TrialRecord]) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "parameters", "step", "", self._heard.metric, "worker"):
            table.add_column(title, justify="right" if title in ("trial", "step") else "left")
        for record in running:
            steps = int(record.config["steps"])
            value = self._heard.progress.value(record)
            table.add_row(
                Text(f"{record.number}{mark(record)}" + (f" {record.name}" if record.name else "")),
                Text(settings_label(record)),
                f"{record.step}/{steps}",
                ProgressBar(total=steps, completed=record.step, width=20),
                "" if value is None else f"{value:.4f}",
                Text(record.worker or "waiting"),
            )
        return table
