"""How a sweep begins, changes, and is driven from a command line."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import click
import sqlalchemy as sa

from segda.config import TrainConfig
from segda.environment import describe_environment
from segda.errors import ConfigError
from segda.guests import importable_folders
from segda.splits import data_fingerprint
from sweeps import exit_codes
from sweeps.checks.makers import spec_from
from sweeps.cli.options import console
from sweeps.execution.remote import check_storage
from sweeps.execution.task import DEFAULT_TRAIN
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease, is_alive
from sweeps.ledger.records import SweepInfo, SweepState
from sweeps.reports.progress import view
from sweeps.reports.summary import summary_table
from sweeps.reports.sweep_report import write_report
from sweeps.reports.view import load_view
from sweeps.store import Store

# Ray and MLflow take seconds to import; commands that only read do without them.
_HOOK_SECONDS = 60.0


def changed(
    spec: SweepSpec,
    *,
    name: str | None = None,
    roots: Mapping[str, Path] | None = None,
    trials: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    tracking: str | None = None,
) -> SweepSpec:
    """Return a sweep with what the command line replaces.

    Raises:
        ConfigError: that is no sweep any more.
    """
    plain = spec.canonical()
    if name is not None:
        plain["name"] = name
    for field, value in (("trials", trials), ("hours", hours), ("gpu_hours", gpu_hours)):
        if value is not None:
            plain["budget"][field] = value
    if tracking is not None:
        plain["tracking"]["uri"] = tracking
    for side in ("source", "target"):
        domain = plain["base"]["data"][side]
        if roots and domain["dataset"] in roots:
            domain["root"] = str(roots[domain["dataset"]])
    return spec_from(plain, where="with the options of the command line")


def begin(spec: SweepSpec, *, ledger: Ledger, source: str) -> None:
    """Add a new sweep to the ledger, or begin one anew that has no trials: its first driver failed before there were any.

    Args:
        spec: the sweep.
        ledger: where to keep it.
        source: where it came from, for people.

    Raises:
        ConfigError: there is a sweep of that name with trials, or that is being run; the message says how to go on with it.
    """
    plain = spec.canonical()
    info = SweepInfo(environment=describe_environment(), file=source, folders=tuple(importable_folders()))
    known = {sweep.name: sweep.spec for sweep in ledger.sweeps()}
    if spec.name not in known:
        ledger.create_sweep(spec.name, spec=plain, info=info)
        return
    if ledger.trials(spec.name):
        if known[spec.name] == plain:
            raise ConfigError(f"sweep {spec.name!r} was started before; go on with `sweeps resume {spec.name}`")
        raise ConfigError(
            f"another sweep is called {spec.name!r}; give this one a name of its own with --name, or go on with the other one: "
            f"`sweeps resume {spec.name}`, with --file to see what differs"
        )
    Lease(ledger, spec.name).check_free()
    ledger.update_info(spec.name, environment=info.environment, file=info.file, folders=info.folders)


def drive(
    spec: SweepSpec,
    *,
    ledger: Ledger,
    store: Store,
    address: str | None = None,
    train: str = DEFAULT_TRAIN,
    fingerprint: Callable[[TrainConfig], str] | None = None,
    resumed: str | None = None,
) -> int:
    """Run or continue a sweep with progress on the terminal, tracking, a report and the sweep file's `on_end` command at the end.

    Args:
        spec: the sweep. The ledger has one of its name, and has this one as soon as nothing can refuse it any more.
        ledger: where its state is kept.
        store: where its files go.
        address: Ray cluster; unset: this machine.
        train: training function as `module:name`.
        fingerprint: hash of the data that a configuration reads; unset: segda's, with a progress bar on a terminal.
        resumed: what the ledger's events say about this driver going on with it; unset: it begins.

    Returns:
        Exit code: 0 done, out of budget or ended by `sweeps stop`; 75 interrupted.

    Raises:
        SegdaError: something that the user can correct.
    """
    from sweeps.execution.runner import run_sweep
    from sweeps.tracking import Tracker

    # Before MLflow is told anything about the sweep.
    Lease(ledger, spec.name).check_free()
    if spec.storage is not None:
        check_storage(spec.storage)
    shown = console()
    tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
    # A wrong address is told before anything is trained; a sweep that goes on waits for no MLflow.
    tracker.start(required=not ledger.trials(spec.name))

    def admitted() -> None:
        ledger.update_sweep(spec.name, spec=spec.canonical())
        if resumed is not None:
            ledger.add_event(spec.name, "resumed", resumed)

    try:
        with _end_told(spec, ledger=ledger, store=store):
            try:
                with view(spec, ledger.trials(spec.name), console=shown) as listener:
                    outcome = run_sweep(
                        spec,
                        ledger=ledger,
                        store=store,
                        address=address,
                        train=train,
                        fingerprint=fingerprint or partial(data_fingerprint, progress=sys.stderr.isatty()),
                        listener=listener,
                        admitted=admitted,
                    )
                if outcome.interrupted is not None:
                    # Launchers ask more than once; what is left to tell is short.
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                paths = write_report(ledger, store, spec.name)
            finally:
                is_synced = tracker.stop()
            shown.print(summary_table(load_view(ledger, store, spec.name), width=shown.width))
            click.echo(f"report:  {paths.html}")
            click.echo(f"MLflow:  {tracker.where}")
            if not is_synced:
                click.echo(
                    f"MLflow does not have everything ({tracker.last_error}); `sweeps sync {spec.name}` sends the rest",
                    err=True,
                )
            if outcome.interrupted is not None or outcome.stop_requested:
                click.echo(f"{outcome.reason}; go on with `sweeps resume {spec.name}`", err=True)
            elif outcome.reason is not None:
                option = "--gpu-hours" if "gpu_hours" in outcome.reason else "--hours"
                click.echo(
                    f"{outcome.reason} before all trials were run; go on with `sweeps resume {spec.name} {option} H`, H counting "
                    "from its beginning",
                    err=True,
                )
    except sa.exc.OperationalError as error:
        reason = " ".join(str(error.orig).split())[:200]
        click.echo(
            f"the ledger's database went away ({reason}); go on with `sweeps resume {spec.name}` when it is back",
            err=True,
        )
        return exit_codes.STOPPED
    return outcome.exit_code


@contextlib.contextmanager
def _end_told(spec: SweepSpec, *, ledger: Ledger, store: Store) -> Iterator[None]:
    """Run the sweep file's `on_end` command however the block ends: an error is when a notification matters most."""
    cut_short = None
    try:
        yield
    except Exception:
        cut_short = SweepState.FAILED
        raise
    except BaseException:
        cut_short = SweepState.INTERRUPTED
        raise
    finally:
        if spec.on_end is not None:
            state = _state(ledger, spec.name, cut_short=cut_short)
            _run_hook(spec, state=state, report=store.report(spec.name))


def _state(ledger: Ledger, name: str, *, cut_short: SweepState | None) -> str:
    """Return what to tell of a sweep whose driver has ended, perhaps before it could say how."""
    try:
        record = ledger.sweep(name)
    except (sa.exc.SQLAlchemyError, ConfigError):  # away, or somebody deleted it
        return "unknown"
    # A driver that lost its lease has failed, but the sweep goes on elsewhere.
    if cut_short is None or is_alive(record.driver, record.driver_seen):
        return str(record.state)
    return cut_short


def _run_hook(spec: SweepSpec, *, state: str, report: Path) -> None:
    """Run the sweep file's `on_end` command; whatever becomes of it changes nothing about the sweep."""
    told = {"SWEEP_NAME": spec.name, "SWEEP_STATE": state, "SWEEP_REPORT": str(report)}
    try:
        # A shell, because people write pipes and redirections there; the file is theirs, like the training that it starts.
        done = subprocess.run(str(spec.on_end), shell=True, env=os.environ | told, timeout=_HOOK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        click.echo(f"on_end did not end within {_HOOK_SECONDS:.0f} s and was stopped: {spec.on_end}", err=True)
        return
    if done.returncode != 0:
        click.echo(f"on_end failed with exit code {done.returncode}: {spec.on_end}", err=True)
