"""What `sweeps stop` does."""

import time
from pathlib import Path

import click

from segda.errors import ConfigError
from sweeps.commands.places import open_ledger
from sweeps.ledger.lease import LEASE_SECONDS, Watch, is_free
from sweeps.store import Store
from sweeps.suggestions import suggest

_POLL_SECONDS = 0.5


def stop_action(name: str, no_wait: bool, store_root: Path, ledger_url: str | None) -> None:
    """Do `sweeps stop`; the arguments are the command's."""
    store = Store.at(store_root)
    with open_ledger(store, ledger_url, create=False) as ledger:
        if is_free(ledger.sweep(name).driver):
            click.echo(f"nothing drives sweep {name!r} now; there is nothing to stop")
            return
        ledger.update_sweep(name, stop_requested=time.time())
        if no_wait:
            click.echo(f"asked the driver of {name} to end")
            return
        # A driver finishes what it is deciding, and gives up its lease last.
        deadline, watch = time.monotonic() + 2 * LEASE_SECONDS, Watch()
        while not is_free((record := ledger.sweep(name)).driver):
            if watch.silence(record) >= LEASE_SECONDS:
                click.echo(
                    f"nothing drives {name} any more: its driver has not renewed its lease for {LEASE_SECONDS:.0f} s"
                )
                return
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"the driver of {name!r} did not end within {2 * LEASE_SECONDS:.0f} s; look at it with "
                    f"{suggest('status', name)}"
                )
            time.sleep(_POLL_SECONDS)
    click.echo(f"stopped {name}; go on with {suggest('resume', name)}")
