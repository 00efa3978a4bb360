"""`sweeps show`: everything about one sweep, or about one trial."""

import click

from segda.cli_command import Command
from segda.errors import ConfigError
from sweeps.cli.options import examples, options


@click.command(
    "show",
    cls=Command,
    action="sweeps.cli.actions.show:show_action",
    epilog=examples(
        "sweeps show camvid_day_to_dusk",
        "sweeps show camvid_day_to_dusk 12",
        "sweeps show camvid_day_to_dusk 12 --json | jq .metrics",
        "sweeps show camvid_day_to_dusk 12 --config > trial12.json",
    ),
)
@options("name")
@click.argument("trial", type=click.IntRange(min=0), required=False)
@options("store", "ledger")
@click.option(
    "--config", "is_config", is_flag=True, help="Print the trial's whole configuration, which `segda train` reads."
)
@options("json", "oracle")
def show_command(trial: int | None, is_config: bool, as_document: bool, oracle: bool, **_: object) -> None:
    """Show the sweep NAME, or its trial number TRIAL.

    A sweep: what was asked, how far it is, what was spent, what to pick and why, where its files are, and what can be done next.
    A trial: what was searched, its metrics (last and best), attempts, failure with traceback, files, MLflow run, and the command
    that trains it alone.
    """
    if is_config and (trial is None or as_document):
        raise ConfigError("--config is about one trial, and prints JSON as it is; name the TRIAL and leave --json out")
    if oracle and not as_document and (trial is None or is_config):
        raise ConfigError("--oracle is about the metrics of a TRIAL, or about --json; leave it out")
