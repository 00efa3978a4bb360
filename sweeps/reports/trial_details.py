"""One trial in full: settings, metrics, attempts, files, what it failed by, and the command that trains it alone."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segda.datasets.base import root_variable
from segda.guests import is_dotted
from segda.masking import masked, masked_plain
from sweeps.checks.makers import stored_spec
from sweeps.execution.remote import has_own_files
from sweeps.execution.trial_log import LOG
from sweeps.execution.watchdog import HANG_FILE
from sweeps.failures import FailureClass
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import RETRIED, STARTED, Event, Point, SweepRecord, attempt_of
from sweeps.metrics import SPLITS, Direction, is_validator
from sweeps.paths import leaves, value_at
from sweeps.planning.packing import allotted
from sweeps.store import Store
from sweeps.suggestions import Place, remembered
from sweeps.trial import TrialRecord, TrialState

CONFIG = "config.json"
_MOST_CHARACTERS = 20_000  # of a traceback
RUNNING, RELEASED = "running", "released"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a trial.

    Attributes:
        number: from 1.
        worker: node and process, e.g. `host:1234`; None: it waits for one, or the ledger is of a version that kept no attempts.
        device: what it computed on.
        started: when its worker began, seconds since 1970; None as for `worker`.
        ended: when its driver heard that it had ended; None: it runs, or its driver ended before it did.
        end: `complete`, `pruned` or `failed`; `running`; `released`, when its driver ended first and the trial was put back.
        failure: class of the failure that ended it.
        message: one line about its end; empty where there is nothing to say.
    """

    number: int
    worker: str | None = None
    device: str | None = None
    started: float | None = None
    ended: float | None = None
    end: str = RELEASED
    failure: FailureClass | None = None
    message: str = ""


@dataclass(frozen=True)
class MetricHistory:
    """What a trial reported of one metric.

    Attributes:
        last: the last value; may be NaN or infinite.
        step: its training step.
        direction: which values are better; None: neither is.
        best: the best finite value so far; None without a direction or a finite value.
        best_step: its training step.
    """

    last: float
    step: int
    direction: Direction | None = None
    best: float | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class TrialFile:
    """A file in a trial's folder.

    Attributes:
        name: in the folder.
        num_bytes: its size.
        modified: seconds since 1970.
    """

    name: str
    num_bytes: int
    modified: float


@dataclass(frozen=True, kw_only=True)
class TrialDetails:
    """A trial at one moment.

    Attributes:
        record: the trial.
        sweep: its sweep.
        spec: the file of its sweep.
        metrics: name -> what it reported, in the order of the names' first report; those of target labels included.
        attempts: all that were made, oldest first.
        folder: where its files are.
        files: those that lie there, by name.
        is_here: whether they are those of its last attempt, and not what an earlier one left on this node.
        traceback: what was kept of its last failure, without passwords; None without.
        place: where commands that are shown find it.
    """

    record: TrialRecord
    sweep: SweepRecord
    spec: SweepSpec
    metrics: Mapping[str, MetricHistory]
    attempts: Sequence[Attempt]
    folder: Path
    files: Sequence[TrialFile]
    is_here: bool
    traceback: str | None = None
    place: Place = field(default_factory=remembered)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that a worker trains, plain data without passwords."""
        config = dict(self.record.config)
        if config.get("device") == "auto" and not allotted(self.spec, self.sweep.info).gpus:
            config["device"] = "cpu"
        plain: dict[str, Any] = masked_plain(config)
        return plain

    @property
    def log(self) -> Path | None:
        """Its log on this machine; None if there is none."""
        path = self.folder / LOG
        return path if path.is_file() else None

    @property
    def log_command(self) -> str:
        """The command that shows its log."""
        return self._command("logs")

    @property
    def train_command(self) -> str:
        """The command that trains it alone, in a folder of its own, as a worker does.

        It reads `config.json` in the trial's folder, and where that is not, what `sweeps show --config` writes.
        """
        resources, record = self.spec.resources, self.record
        words = [f"OMP_NUM_THREADS={resources.threads}", *_module_path(self.sweep, self.config)]
        path, place = self.folder / CONFIG, _working_folder(self.sweep, self.config)
        before = "" if place is None else f"{shlex.join(['cd', str(place)])} && "
        if not path.is_file():
            path = Path(f"{record.sweep}-{record.number}.json")
            before += f"{self._command('show', '--config')} > {path} && "
        words += ["segda", "train", str(path)]
        for dataset, root in data_roots(self.config).items():
            words += ["--data-root", f"{dataset}={root}"]
        if record.micro_batch is not None:
            words += ["--micro-batch", str(record.micro_batch)]
        if resources.processes > 1:
            words += ["--processes", str(resources.processes)]
        return before + shlex.join([*words, "--folder", f"{record.sweep}-{record.number}-alone"])

    def _command(self, verb: str, *words: str) -> str:
        return self.place.command(verb, self.record.sweep, str(self.record.number), *words)


def read_trial(ledger: Ledger, store: Store, name: str, number: int) -> TrialDetails:
    """Read a trial.

    Args:
        ledger: where it is.
        store: where its files are.
        name: its sweep.
        number: the trial.

    Raises:
        ConfigError: there is no such sweep or trial, or the sweep's file cannot be read by this version.
    """
    sweep = ledger.sweep(name)
    spec = stored_spec(sweep)
    record = ledger.trial(name, number)
    folder = store.trial(record)
    return TrialDetails(
        record=record,
        sweep=sweep,
        spec=spec,
        metrics=metric_histories(ledger.points(name, number), spec),
        attempts=attempts_of(record, ledger.events(name)),
        folder=folder,
        files=_files(folder),
        is_here=spec.storage is None or has_own_files(record, store=store),
        traceback=None if record.failure is None else _traceback(folder, record.failure),
    )


def attempts_of(record: TrialRecord, events: Iterable[Event]) -> list[Attempt]:
    """Return the attempts at a trial, as far as the ledger tells of them.

    Args:
        record: the trial.
        events: of its sweep, in order of arrival.
    """
    found = {number: Attempt(number) for number in range(1, record.attempt + 1)}
    ends = {RETRIED: TrialState.FAILED, **{str(state): state for state in TrialState if state.is_finished}}
    latest = 0
    for event in events:
        if event.number != record.number:
            continue
        if event.kind == STARTED:
            latest, worker, device = attempt_of(event.message)
            if latest in found:
                found[latest] = replace(found[latest], worker=worker, device=device, started=event.timestamp)
        elif event.kind in ends:
            # One that ended before its worker began has no other trace.
            latest += latest not in found or found[latest].ended is not None
            if latest in found:
                found[latest] = replace(
                    found[latest],
                    ended=event.timestamp,
                    end=str(ends[event.kind]),
                    failure=event.failure,
                    message=event.message,
                )
    last = found.get(record.attempt)
    if last is not None:
        if last.worker is None:
            last = replace(last, worker=record.worker or None, device=record.device if record.worker else None)
        if record.state.is_finished and last.ended is None:
            last = replace(last, ended=record.finished, end=str(record.state), failure=record.failure)
        elif record.state is TrialState.RUNNING:
            last = replace(last, end=RUNNING)
        found[record.attempt] = last
    return list(found.values())


def metric_histories(points: Iterable[Point], spec: SweepSpec) -> dict[str, MetricHistory]:
    """Return the last and the best value of each metric that a trial reported.

    Args:
        points: its reports by step.
        spec: its sweep, whose objectives say of further metrics which values are better.
    """
    found: dict[str, MetricHistory] = {}
    wanted = {item.metric: item.direction for item in spec.objectives}
    for point in points:
        for name, value in point.metrics.items():
            before = found.get(name) or MetricHistory(value, point.step, direction_of(name, wanted))
            best, best_step = before.best, before.best_step
            if before.direction is not None and value - value == 0:  # finite
                sign = 1 if before.direction == "maximize" else -1
                if best is None or sign * value > sign * best:
                    best, best_step = value, point.step
            found[name] = replace(before, last=value, step=point.step, best=best, best_step=best_step)
    return found


def direction_of(metric: str, wanted: Mapping[str, Direction]) -> Direction | None:
    """Return which values of a metric are better; None where neither is, as of a learning rate.

    Args:
        metric: its name.
        wanted: metric -> direction, for those that are objectives.
    """
    if metric in wanted:
        return wanted[metric]
    if metric.startswith("train/loss"):
        return "minimize"
    return "maximize" if metric.startswith(tuple(f"{split}/" for split in SPLITS)) or is_validator(metric) else None


def _files(folder: Path) -> list[TrialFile]:
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            found.append(TrialFile(path.name, status.st_size, status.st_mtime))
    return found


def _traceback(folder: Path, failure: FailureClass) -> str | None:
    path = folder / (HANG_FILE if failure is FailureClass.HANG else "error.txt")
    try:
        return masked(path.read_text(encoding="utf-8", errors="replace"))[-_MOST_CHARACTERS:].rstrip() or None
    except OSError:
        return None


def data_roots(config: Mapping[str, Any]) -> dict[str, str]:
    """Return where each data set of a run lies, as far as that is known and one folder per data set."""
    found: dict[str, set[str]] = {}
    for side in ("source", "target"):
        dataset = str(value_at(config, f"data.{side}.dataset"))
        root = value_at(config, f"data.{side}.root") or os.environ.get(root_variable(dataset))
        if root:
            found.setdefault(dataset, set()).add(str(Path(root).expanduser().absolute()))
    return {dataset: roots.pop() for dataset, roots in found.items() if len(roots) == 1}


def _working_folder(sweep: SweepRecord, config: Mapping[str, Any]) -> Path | None:
    """Return the folder from which a configuration names files, such as a description of data, by relative paths, if it does."""
    named = [value for _, value in leaves(config) if isinstance(value, str) and Path(value).suffix]
    relative = [Path(value) for value in named if not Path(value).is_absolute()]
    places = map(Path, sweep.info.folders)
    return next((place for place in places if any((place / path).is_file() for path in relative)), None)


def _module_path(sweep: SweepRecord, config: Mapping[str, Any]) -> list[str]:
    """Return the setting by which Python finds what a configuration names from outside."""
    names_guests = any(isinstance(value, str) and is_dotted(value) for _, value in leaves(config))
    return [f"PYTHONPATH={os.pathsep.join(sweep.info.folders)}"] if names_guests and sweep.info.folders else []
