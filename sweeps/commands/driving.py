"""How a sweep begins, changes, and is driven."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from segda.config import TrainConfig
from segda.datasets.base import resolve_root
from segda.environment import describe_environment
from segda.errors import ConfigError
from segda.files import expanded, make_private_folder
from segda.guests import importable_folders
from segda.splits import data_fingerprint
from sweeps.checks.makers import spec_from
from sweeps.commands.cut_short import cut_short_told
from sweeps.commands.ending import end_told
from sweeps.commands.live_report import LiveReport
from sweeps.execution.remote import check_storage
from sweeps.execution.signals import ending_ignored
from sweeps.execution.task import DEFAULT_TRAIN
from sweeps.exit_codes import STOPPED
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.ledger.records import RESUMED, SweepInfo
from sweeps.planning.profiles import sample_config
from sweeps.reports.notebook import WIDTH, as_html, as_text
from sweeps.reports.pick import pick_guide
from sweeps.reports.progress import view
from sweeps.reports.summary import summary
from sweeps.reports.sweep_report import write_report
from sweeps.reports.view import SweepView, load_view
from sweeps.store import Store
from sweeps.suggestions import suggest

if TYPE_CHECKING:
    from sweeps.execution.runner import SweepOutcome  # imports Ray, which takes seconds


@dataclass(frozen=True, repr=False)
class SweepEnd:
    """How a driver of a sweep ended.

    Attributes:
        outcome: what became of the sweep.
        view: the sweep as a report reads it.
        report: the HTML page that says what to pick.
        tracking: where MLflow's pages are.
        tracking_error: why MLflow does not have everything, if so; `sweeps sync` sends the rest.
    """

    outcome: "SweepOutcome"
    view: SweepView
    report: Path
    tracking: str
    tracking_error: str | None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.outcome.is_done

    @property
    def exit_code(self) -> int:
        """What the program `sweeps` would exit with: 0, 3 when the result falls short, 75 when it is to be resumed."""
        return self.outcome.exit_code

    def places(self) -> list[str]:
        """Return what was picked, what uses it, and where to read more."""
        guide = pick_guide(self.view)
        lines = []
        if guide is not None and self.view.picked is not None:
            lines.append(f"pick:    trial {self.view.picked.number}{f', {guide.worth}' if guide.worth else ''}")
            lines += [f"network: {guide.checkpoint}"] if guide.checkpoint else []
            lines += [f"{f'{what}:':8} {command}" for what, command in guide.commands.items()]
        return [*lines, f"report:  {self.report}", f"MLflow:  {self.tracking}"]

    def notices(self) -> list[str]:
        """Return what is left to do, and how; empty if nothing is."""
        outcome, lines = self.outcome, []
        if self.tracking_error is not None:
            missing = f"MLflow does not have everything ({self.tracking_error})"
            lines.append(f"{missing}; {suggest('sync', outcome.name)} sends the rest")
        aside = sum(trial.is_set_aside for trial in outcome.trials)
        if aside and not outcome.is_stalled:
            lines.append(
                f"{aside} of {len(outcome.trials)} trials were failed by the machines, not by their configurations, and spent no "
                f"budget; {suggest('resume', outcome.name)} tries them again"
            )
        if outcome.interrupted is not None or outcome.is_lost or outcome.stop_requested or outcome.is_stalled:
            lines.append(f"{outcome.reason}; go on with {suggest('resume', outcome.name)}")
        elif outcome.reason is not None:
            is_money = "budget.cost" in outcome.reason
            option = "--cost" if is_money else "--gpu-hours" if "gpu_hours" in outcome.reason else "--hours"
            amount = "C" if is_money else "H"
            before = f"{outcome.reason} before all trials were run"
            again = suggest("resume", outcome.name, option, amount)
            lines.append(f"{before}; go on with {again}, {amount} counting from its beginning")
        if outcome.shortfall is not None:
            lines.append(outcome.shortfall)
        return lines

    def _picture(self) -> RenderableType:
        return Group(*summary(self.view, width=WIDTH).renderables, *map(Text, [*self.places(), *self.notices()]))

    def __repr__(self) -> str:
        return as_text(self._picture())

    def _repr_html_(self) -> str:
        return as_html(self._picture())


def changed(
    spec: SweepSpec,
    *,
    name: str | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    trials: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    cost: float | None = None,
    tracking: str | None = None,
) -> SweepSpec:
    """Return a sweep with some of its settings replaced.

    Args:
        spec: the sweep.
        name: its new name.
        data_roots: name of a data set -> its folder.
        trials: `budget.trials`.
        hours: `budget.hours`.
        gpu_hours: `budget.gpu_hours`.
        cost: `budget.cost`.
        tracking: `tracking.uri`.

    Raises:
        ConfigError: that is no sweep any more.
    """
    plain = spec.canonical()
    if name is not None:
        plain["name"] = name
    for field, value in (("trials", trials), ("hours", hours), ("gpu_hours", gpu_hours), ("cost", cost)):
        if value is not None:
            plain["budget"][field] = value
    if tracking is not None:
        plain["tracking"]["uri"] = tracking
    for side in ("source", "target"):
        domain = plain["base"]["data"][side]
        if data_roots and domain["dataset"] in data_roots:
            domain["root"] = str(expanded(data_roots[domain["dataset"]]).absolute())
    return spec_from(plain, where=f"sweep {spec.name} as it was changed")


def check_data(spec: SweepSpec) -> None:
    """Refuse a sweep whose data sets are not there, before anything is made.

    Raises:
        DatasetNotFoundError: one has no folder.
    """
    data = sample_config(spec).data
    for domain in (data.source, data.target):
        resolve_root(domain.dataset, domain.root)


def check_surroundings(spec: SweepSpec) -> None:
    """Refuse a new sweep whose data, MLflow server or storage cannot be reached, before anything is made.

    Raises:
        SegdaError: what is missing, in one line.
    """
    from sweeps.tracking import check_server  # MLflow takes seconds

    check_data(spec)
    check_server(spec.tracking.uri, experiment=spec.tracking.experiment or spec.name)
    if spec.storage is not None:
        check_storage(spec.storage)


def begin(spec: SweepSpec, *, ledger: Ledger, source: str) -> bool:
    """Add a new sweep to the ledger, or begin one anew that has no trials: its first driver failed before there were any.

    Args:
        spec: the sweep.
        ledger: where to keep it.
        source: where it came from, for people.

    Returns:
        Whether the ledger did not know it.

    Raises:
        ConfigError: there is a sweep of that name with trials, or that is being run; the message says how to go on with it.
    """
    plain = spec.canonical()
    info = SweepInfo(environment=describe_environment(), file=source, folders=tuple(importable_folders()))
    known = {sweep.name: sweep.spec for sweep in ledger.sweeps()}
    if spec.name not in known:
        ledger.create_sweep(spec.name, spec=plain, info=info)
        return True
    if ledger.trials(spec.name):
        if known[spec.name] == plain:
            raise ConfigError(f"sweep {spec.name!r} was started before; go on with {suggest('resume', spec.name)}")
        raise ConfigError(
            f"another sweep is called {spec.name!r}; give this one a name of its own with --name, or go on with the other one: "
            f"{suggest('resume', spec.name)}, with --file to see what differs"
        )
    Lease(ledger, spec.name).check_free()
    ledger.update_info(spec.name, environment=info.environment, file=info.file, folders=info.folders)
    return False


def drive(
    spec: SweepSpec,
    *,
    ledger: Ledger,
    store: Store,
    address: str | None = None,
    train: str = DEFAULT_TRAIN,
    fingerprint: Callable[[TrainConfig], str] | None = None,
    resumed: str | None = None,
    progress: bool = True,
) -> SweepEnd:
    """Run or continue a sweep with tracking, a report that is renewed, and the sweep file's `on_end` command at the end.

    Args:
        spec: the sweep. The ledger has one of its name, and has this one as soon as nothing can refuse it any more.
        ledger: where its state is kept.
        store: where its files go.
        address: Ray cluster; unset: this machine.
        train: training function as `module:name`.
        fingerprint: hash of the data that a configuration reads; unset: segda's, with a progress bar on a terminal.
        resumed: what the ledger's events say about this driver going on with it; unset: it begins.
        progress: whether to show what happens: a table that moves in a terminal or a notebook, else a line per event.

    Returns:
        How it ended; also after SIGINT, SIGTERM, SIGHUP, `sweeps stop` or the end of Ray.

    Raises:
        CutShortError: the ledger's database or a disk went away.
        KeyboardInterrupt: there was a second SIGINT.
        SegdaError: something that the user can correct.
    """
    # They take seconds; commands that only read do without.
    from sweeps.execution.runner import run_sweep
    from sweeps.tracking import Tracker

    make_private_folder(store.root)
    # Before MLflow is told anything about the sweep.
    Lease(ledger, spec.name).check_free()
    if spec.storage is not None:
        check_storage(spec.storage)
    how = f"go on with {suggest('resume', spec.name)}"
    tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
    is_known = bool(ledger.trials(spec.name))
    if is_known:  # a sweep that goes on waits for no MLflow
        tracker.start(required=False)

    def admitted() -> None:
        if not is_known:  # not before: MLflow would show a sweep that is refused after all
            tracker.start(required=True)
        ledger.update_sweep(spec.name, spec=spec.canonical())
        if resumed is not None:
            ledger.add_event(spec.name, RESUMED, resumed)

    with cut_short_told(how), contextlib.ExitStack() as ending, end_told(spec, ledger=ledger, store=store):
        try:
            shown = view(spec, ledger.trials(spec.name)) if progress else contextlib.nullcontext()
            with shown as listener, LiveReport(ledger, store, spec.name) as report:
                outcome = run_sweep(
                    spec,
                    ledger=ledger,
                    store=store,
                    address=address,
                    train=train,
                    fingerprint=fingerprint or partial(data_fingerprint, progress=progress and sys.stderr.isatty()),
                    listener=report.hearing(listener),
                    admitted=admitted,
                )
            if outcome.exit_code == STOPPED:
                # Launchers ask more than once; what is left to do is short.
                ending.enter_context(ending_ignored())
            # Why the sweep ended counts more than that its report could not be written.
            with cut_short_told(how, why=outcome.reason):
                paths = write_report(ledger, store, spec.name, draws=outcome.exit_code != STOPPED)
        finally:
            is_synced = tracker.stop()
        return SweepEnd(
            outcome=outcome,
            view=load_view(ledger, store, spec.name),
            report=paths.html,
            tracking=tracker.where,
            tracking_error=None if is_synced else str(tracker.last_error),
        )
