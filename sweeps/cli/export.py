"""`sweeps export`: a sweep for other tools."""

from pathlib import Path

import click

from segda.cli_command import Command
from segda.errors import ConfigError
from sweeps.cli.options import examples, options


@click.command(
    "export",
    cls=Command,
    action="sweeps.cli.actions.export:export_action",
    epilog=examples(
        "sweeps export camvid_day_to_dusk --csv trials.csv",
        "sweeps export camvid_day_to_dusk --optuna study.db && optuna-dashboard sqlite:///study.db",
        "sweeps export camvid_day_to_dusk --optuna postgresql+psycopg2://user@host/optuna --force",
    ),
)
@options("name")
@options("store", "ledger")
@click.option(
    "--optuna",
    "optuna_target",
    metavar="FILE_OR_URL",
    help="Write an Optuna study of the sweep's name into this SQLite file or database.",
)
@click.option("--force", is_flag=True, help="Replace a study of that name.")
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the table of trials, with all metrics, into this file.",
)
def export_command(optuna_target: str | None, force: bool, csv_path: Path | None, **_: object) -> None:
    """Write the sweep NAME for other tools, as an Optuna study or as a table. It may still be running."""
    if optuna_target is None and csv_path is None:
        raise ConfigError("nothing to write; say where to with --optuna FILE_OR_URL or --csv FILE")
    if force and optuna_target is None:
        raise ConfigError("--force is about --optuna; leave it out, since --csv replaces its file anyway")
