"""The sweep file's `on_end` command, which is run whenever a driver ends."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import sqlalchemy as sa

from segda.errors import ConfigError
from segda.masking import masked
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import is_alive
from sweeps.ledger.records import SweepState
from sweeps.store import Store

_HOOK_SECONDS = 60.0


@contextlib.contextmanager
def end_told(spec: SweepSpec, *, ledger: Ledger, store: Store) -> Iterator[None]:
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
            run_hook(spec, state=state, report=store.report(spec.name))


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


def run_hook(spec: SweepSpec, *, state: str, report: Path) -> None:
    """Run the sweep file's `on_end` command; whatever becomes of it changes nothing about the sweep."""
    told = {"SWEEP_NAME": spec.name, "SWEEP_STATE": state, "SWEEP_REPORT": str(report)}
    try:
        # A shell, because people write pipes and redirections there; the file is theirs, like the training that it starts.
        done = subprocess.run(str(spec.on_end), shell=True, env=os.environ | told, timeout=_HOOK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        click.echo(
            f"on_end did not end within {_HOOK_SECONDS:.0f} s and was stopped: {masked(str(spec.on_end))}", err=True
        )
        return
    if done.returncode != 0:
        click.echo(f"on_end failed with exit code {done.returncode}: {masked(str(spec.on_end))}", err=True)
