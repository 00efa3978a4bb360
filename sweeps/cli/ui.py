"""`sweeps ui`: MLflow's page of a store, with every trial in sight."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "ui",
    cls=Command,
    action="sweeps.cli.actions.ui:ui_action",
    epilog=examples(
        "sweeps ui",
        "sweeps ui camvid_day_to_dusk",
        "sweeps ui --store /archive/runs --port 5005 --no-browser",
        "ssh -L 5000:127.0.0.1:5000 HOST     then open the link of a sweep there in the browser here",
    ),
)
@options("name or none")
@options("store", "ledger")
@click.option(
    "--port", type=click.IntRange(min=1, max=65535), help="Where to serve it.  [default: 5000, or the next free one]"
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page in a browser.")
def ui_command(**_: object) -> None:
    """Serve MLflow's pages for a store, to this machine alone, and open the sweep NAME, or the one that began last.

    Every trial is a row with what was searched and what came of it; the picked one has a star, and the charts beside the table show
    settings against outcome. A sweep whose runs are at an MLflow server is opened there. Ctrl-C ends it.
    """
