"""`sweeps report`: what to pick, and why; or several sweeps side by side."""

from pathlib import Path

import click

from segda.cli_command import Command
from segda.errors import ConfigError
from sweeps.cli.options import examples, options


@click.command(
    "report",
    cls=Command,
    action="sweeps.cli.actions.report:report_action",
    epilog=examples(
        "sweeps report camvid_day_to_dusk",
        "sweeps report camvid_day_to_dusk loveda_urban_to_rural",
        "sweeps report camvid_day_to_dusk --json | jq .pick",
        "sweeps report camvid_day_to_dusk --store /archive/runs --to .",
    ),
)
@options("names")
@options("store", "ledger")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the report, e.g. where the store is read-only. [default: the sweep's folder; of several sweeps the store]",
)
@options("json", "oracle")
def report_command(folder: Path | None, as_document: bool, oracle: bool, **_: object) -> None:
    """Write the report of the sweep NAME: what to pick, and why. It may still be running.

    With several names, write a comparison of these sweeps. With --json the figures are printed and nothing is written; those that
    are made from target labels, which the page shows and names so, are in the document only with --oracle.
    """
    if oracle and not as_document:
        raise ConfigError("--oracle is about --json: the page shows those metrics anyway; leave it out")
    if as_document and folder is not None:
        raise ConfigError("--json writes no page, so --to has nothing to say; leave one of them out")
