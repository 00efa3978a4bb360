"""`sweeps show`: everything about one sweep, or about one trial."""

import json
from pathlib import Path

import click

from segda.documents import as_json
from segda.errors import ConfigError
from sweeps.cli.options import examples, options
from sweeps.reports.terminal import console


@click.command(
    "show",
    epilog=examples(
        "sweeps show camvid_day_to_dusk",
        "sweeps show camvid_day_to_dusk 12",
        "sweeps show camvid_day_to_dusk 12 --json | jq .metrics",
        "sweeps show camvid_day_to_dusk 12 --config > trial12.json",
    ),
)
@click.argument("name")
@click.argument("trial", type=click.IntRange(min=0), required=False)
@options("store", "ledger")
@click.option(
    "--config", "is_config", is_flag=True, help="Print the trial's whole configuration, which `segda train` reads."
)
@options("json", "oracle")
def show_command(
    name: str,
    trial: int | None,
    store_root: Path,
    ledger_url: str | None,
    is_config: bool,
    as_document: bool,
    oracle: bool,
) -> None:
    """Show the sweep NAME, or its trial number TRIAL.

    A sweep: what was asked, how far it is, what was spent, what to pick and why, where its files are, and what can be done next.
    A trial: what was searched, its metrics (last and best), attempts, failure with traceback, files, MLflow run, and the command
    that trains it alone.
    """
    if is_config and (trial is None or as_document):
        raise ConfigError("--config is about one trial, and prints JSON as it is; name the TRIAL and leave --json out")
    if oracle and not as_document and (trial is None or is_config):
        raise ConfigError("--oracle is about the metrics of a TRIAL, or about --json; leave it out")
    from sweeps.commands.showing import ShownTrial, show  # takes seconds
    from sweeps.reports.details_table import next_lines, render_sweep, render_trial

    found = show(name, trial, store=store_root, ledger=ledger_url)
    if as_document:
        click.echo(as_json(found.document(oracle=oracle)))
        return
    if isinstance(found, ShownTrial):
        if is_config:
            click.echo(json.dumps(found.config, indent=2))
            return
        console().print(render_trial(found, oracle=oracle))
    else:
        console().print(render_sweep(found))
    click.echo("\n".join(next_lines(found)))
