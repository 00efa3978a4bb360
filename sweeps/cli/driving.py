"""How a sweep begins, changes, and is driven from a command line."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import click
import sqlalchemy as sa

from segda.config import TrainConfig
from segda.environment import describe_environment
from segda.errors import ConfigError
from segda.splits import data_fingerprint
from sweeps import exit_codes
from sweeps.cli.options import console
from sweeps.execution.progress import view
from sweeps.execution.remote import check_storage
from sweeps.execution.worker import DEFAULT_TRAIN
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import Lease
from sweeps.report.summary import summary_table
from sweeps.report.sweep_report import write_report
from sweeps.report.view import load_view
from sweeps.spec import SweepSpec
from sweeps.store import Store

# Ray and MLflow take seconds to import; commands that only read do without them.
_HOOK_SECONDS = 60.0


def stored_spec(ledger: Ledger, name: str) -> SweepSpec:
    """Return the sweep file that the ledger has of a sweep.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
    """
    return SweepSpec.model_validate(dict(ledger.sweep(name).spec))


def changed(
    spec: SweepSpec,
    *,
    name: str | None = None,
    roots: Mapping[str, Path] | None = None,
    trials: int | None = None,
    hours: float | None = None,
    tracking: str | None = None,
) -> SweepSpec:
    """Return a sweep with what the command line replaces."""
    plain = spec.canonical()
    if name is not None:
        plain["name"] = name
    for field, value in (("trials", trials), ("hours", hours)):
        if value is not None:
            plain["budget"][field] = value
    if tracking is not None:
        plain["tracking"]["uri"] = tracking
    for side in ("source", "target"):
        domain = plain["base"]["data"][side]
        if roots and domain["dataset"] in roots:
            domain["root"] = str(roots[domain["dataset"]])
    return SweepSpec.model_validate(plain)


def begin(spec: SweepSpec, *, ledger: Ledger, source: str) -> None:
    """Add a new sweep to the ledger.

    Args:
        spec: the sweep.
        ledger: where to keep it.
        source: where it came from, for people.

    Raises:
        ConfigError: there is a sweep of that name; the message says how to go on with it.
    """
    plain = spec.canonical()
    known = {sweep.name: sweep.spec for sweep in ledger.sweeps()}
    if spec.name in known:
        if known[spec.name] == plain:
            raise ConfigError(f"sweep {spec.name!r} was started before; go on with `sweeps resume {spec.name}`")
        raise ConfigError(
            f"another sweep is called {spec.name!r}; give this one a name of its own with --name, or go on with the other one: "
            f"`sweeps resume {spec.name}`, with --file to see what differs"
        )
    ledger.create_sweep(spec.name, spec=plain, info={"environment": describe_environment(), "file": source})


def drive(
    spec: SweepSpec,
    *,
    ledger: Ledger,
    store: Store,
    address: str | None = None,
    train: str = DEFAULT_TRAIN,
    fingerprint: Callable[[TrainConfig], str] | None = None,
) -> int:
    """Run or continue a sweep with progress on the terminal, tracking, and a report at the end.

    Args:
        spec: the sweep, which the ledger has.
        ledger: where its state is kept.
        store: where its files go.
        address: Ray cluster; unset: this machine.
        train: training function as `module:name`.
        fingerprint: hash of the data that a configuration reads; unset: segda's, with a progress bar on a terminal.

    Returns:
        Exit code: 0 done, 75 or 130 interrupted.

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
            )
        paths = write_report(ledger, store, spec.name)
    except sa.exc.OperationalError as error:
        reason = " ".join(str(error.orig).split())[:200]
        click.echo(
            f"the ledger's database went away ({reason}); go on with `sweeps resume {spec.name}` when it is back",
            err=True,
        )
        return exit_codes.STOPPED
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
    if outcome.interrupted is not None:
        click.echo(f"{outcome.reason}; go on with `sweeps resume {spec.name}`", err=True)
    elif outcome.reason is not None:
        click.echo(
            f"{outcome.reason} before all trials were run; go on with `sweeps resume {spec.name} --hours H`", err=True
        )
    if spec.on_end is not None:
        _run_hook(spec, state=str(ledger.sweep(spec.name).state), report=paths.html)
    return outcome.exit_code


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
