"""`sweeps report`: what to pick, and why; or several sweeps side by side."""

from pathlib import Path

import click

from sweeps.cli.options import examples, options
from sweeps.commands.reading import report


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
    page = report(*names, store=store_root, ledger=ledger_url)
    click.echo(f"{page}\n{page.with_suffix('.md')}")
