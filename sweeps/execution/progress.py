"""What a person sees while a sweep runs: a live table in a terminal, one line per event elsewhere."""

import threading
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.planning.counts import planned_trials
from sweeps.report.labels import method_label, short_params
from sweeps.spec import SweepSpec
from sweeps.trial import TrialKind, TrialRecord, TrialState


class View(Protocol):
    """Hears what happens to a sweep and shows it; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __call__(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Show an event."""


def view(spec: SweepSpec, trials: list[TrialRecord], *, console: Console) -> View:
    """Return the view that fits the console.

    Args:
        spec: the sweep.
        trials: what it has already.
        console: where to show it.
    """
    board = Board(spec, trials)
    return LiveView(board, console) if console.is_terminal else LineView(board, console)


class Board:
    """The figures behind both views; who lets another thread read them holds a lock around both.

    Attributes:
        spec: the sweep.
        metric: its first objective.
        total: trials that the sweep will have trained at its end.
        notes: newest lines about the sweep as a whole.
    """

    def __init__(self, spec: SweepSpec, trials: list[TrialRecord]) -> None:
        """Begin with the trials that a resumed sweep has already."""
        self.spec = spec
        self.metric = spec.objectives[0].metric
        self._maximize = spec.objectives[0].direction == "maximize"
        self._records = {record.number: record for record in trials}
        self._started = time.monotonic()
        self._steps_before = self.steps
        self.total = planned_trials(spec).total
        self.notes: list[str] = []

    def hear(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Take an event in."""
        if record is not None:
            self._records[record.number] = record
        elif message:
            self.notes = [*self.notes[-2:], message]

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in any of some states."""
        return sum(record.state in states for record in self._records.values())

    @property
    def running(self) -> list[TrialRecord]:
        """Running trials by number."""
        records = (record for record in self._records.values() if record.state is TrialState.RUNNING)
        return sorted(records, key=lambda record: record.number)

    @property
    def steps(self) -> int:
        """Training steps acknowledged so far."""
        return sum(record.step for record in self._records.values())

    @property
    def elapsed(self) -> float:
        """Seconds since this driver started."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float | None:
        """Estimated seconds until the end; None before there is a rate.

        From the steps per second of this driver and the mean steps of ended trials: pruning makes trials cheaper than planned.
        """
        rate = (self.steps - self._steps_before) / self.elapsed if self.elapsed > 0 else 0.0
        if rate <= 0:
            return None
        ended = [record.step for record in self._records.values() if record.state.is_finished and record.step]
        open_trials = [record for record in self._records.values() if not record.state.is_finished]
        planned = max((int(record.config["steps"]) for record in open_trials), default=0)
        mean = sum(ended) / len(ended) if ended else float(planned)
        done = self.count(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
        fresh = max(0, self.total - done - len(open_trials))
        steps = fresh * mean + sum(max(0.0, mean - record.step) for record in open_trials)
        return steps / rate

    @property
    def best(self) -> TrialRecord | None:
        """The fully trained trial of the search with the best value of the first objective."""
        found = [
            record
            for record in self._records.values()
            if record.kind is TrialKind.SEARCH
            and record.state is TrialState.COMPLETE
            and self.value(record) is not None
        ]
        sign = 1.0 if self._maximize else -1.0
        return max(found, key=lambda record: sign * (self.value(record) or 0.0), default=None)

    def value(self, record: TrialRecord) -> float | None:
        """Return the first objective of a trial, if it is known."""
        return record.metrics.get(self.metric, record.profile.get(self.metric))

    def summary(self) -> str:
        """Return the state of the sweep in one line."""
        done = self.count(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
        parts = [
            f"{done}/{self.total} trials",
            f"{self.count(TrialState.COMPLETE)} complete",
            f"{self.count(TrialState.PRUNED)} pruned",
            f"{self.count(TrialState.FAILED)} failed",
        ]
        infeasible = self.count(TrialState.INFEASIBLE)
        if infeasible:
            parts.append(f"{infeasible} infeasible")
        parts += [f"{self.steps} steps", f"{duration(self.elapsed)} elapsed"]
        if self.left is not None:
            parts.append(f"about {duration(self.left)} left")
        return ", ".join(parts)

    def line(self, record: TrialRecord) -> str:
        """Return a trial in one line."""
        value = self.value(record)
        shown = f" {self.metric} {value:.4f}" if value is not None else ""
        name = f" [{record.name}]" if record.name else ""
        return f"trial {record.number}{name} step {record.step}/{record.config['steps']}{shown} ({describe(record)})"


def describe(record: TrialRecord) -> str:
    """Return method and searched parameters of a trial in one short text."""
    return ", ".join(text for text in (method_label(record), short_params(record.params)) if text)


def duration(seconds: float) -> str:
    """Return a time span for people.

    Example:
        >>> duration(3725), duration(65), duration(3)
        ('1 h 02 min', '1 min 05 s', '3 s')
    """
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class LineView:
    """One line per event, for logs and pipes."""

    def __init__(self, board: Board, console: Console) -> None:
        """Show a board's events on a console."""
        self._board = board
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._say(self._board.summary())

    def __call__(self, kind: str, record: TrialRecord | None, message: str) -> None:
        """Show an event."""
        self._board.hear(kind, record, message)
        if record is None:
            self._say(message)
            return
        where = f" on {record.worker}" if kind == "started" else ""
        self._say(f"{kind:<10} {self._board.line(record)}{where}" + (f": {message}" if message else ""))

    def _say(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A table that is redrawn in place."""

    def __init__(self, board: Board, console: Console) -> None:
        """Show a board on a terminal."""
        self._board = board
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
            self._board.hear(kind, record, message)
        if record is not None and kind in ("failed", "lost"):
            self._console.print(Text(f"{kind}: {self._board.line(record)}: {message}", style="red"))

    def _render(self) -> RenderableType:
        with self._lock:
            board = self._board
            head = Text(f"{board.spec.name}: {board.summary()}")
            parts: list[RenderableType] = [head]
            best = board.best
            if best is not None:
                parts.append(Text(f"best: {board.line(best)}", style="bold green"))
            parts.append(self._table(board.running))
            parts += [Text(note, style="dim") for note in board.notes]
            return Group(*parts)

    def _table(self, running: list[TrialRecord]) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "parameters", "step", "", self._board.metric, "worker"):
            table.add_column(title, justify="right" if title in ("trial", "step") else "left")
        for record in running:
            steps = int(record.config["steps"])
            value = self._board.value(record)
            table.add_row(
                str(record.number) + (f" {record.name}" if record.name else ""),
                describe(record),
                f"{record.step}/{steps}",
                ProgressBar(total=steps, completed=record.step, width=20),
                "" if value is None else f"{value:.4f}",
                record.worker or "waiting",
            )
        return table
