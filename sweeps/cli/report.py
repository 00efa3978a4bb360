"""`sweeps report`: what to pick, and why; or several sweeps side by side."""

from pathlib import Path

import click

from sweeps.cli.options import examples, open_ledger, options
from sweeps.reports.comparison_report import write_comparison
from sweeps.reports.sweep_report import write_report
from sweeps.store import Store


@click.command(
    "report",
    epilog=examples(
        "sweeps report camvid_day_to_dusk",
        "sweeps report camvid_day_to_dusk loveda_urban_to_rural",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@options("store", "ledger")
def report_command(names: tuple[str, ...], store_root: Path, ledger_url: str | None) -> None:
    """Write the report of the sweep NAME: what to pick, and why. It may still be running.

    With several names, write a comparison of these sweeps into the store.
    """
    store = Store.at(store_root)
    with open_ledger(store, ledger_url, create=False) as ledger:
        paths = write_report(ledger, store, names[0]) if len(names) == 1 else write_comparison(ledger, store, names)
        click.echo(f"{paths.html}\n{paths.markdown}")
