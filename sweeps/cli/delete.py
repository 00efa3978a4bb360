"""`sweeps delete`: a sweep taken out of ledger and store."""

import click

from segda.cli_command import Command
from sweeps.cli.asking import check_json, check_terminal
from sweeps.cli.options import examples, options


@click.command(
    "delete",
    cls=Command,
    action="sweeps.cli.actions.delete:delete_action",
    epilog=examples(
        "sweeps delete first_try --dry-run",
        "sweeps delete first_try",
        "sweeps delete first_try --mlflow --yes",
    ),
)
@options("name")
@click.option(
    "--mlflow", is_flag=True, help="Delete its runs in MLflow too, and the experiment if that holds no others."
)
@options("dry_run", "yes", "store", "ledger", "json")
def delete_command(name: str, dry_run: bool, is_sure: bool, as_document: bool, **_: object) -> None:
    """Delete the sweep NAME with its trials, checkpoints, report, deployment and logs, here and at its storage address.

    It is refused while a driver is at work, or another sweep needs this one. Whatever ends it in the middle, the same command goes
    on. MLflow keeps the runs unless --mlflow is said; figures of architectures stay, since all sweeps share them.
    """
    check_json(as_document=as_document, dry_run=dry_run)
    check_terminal(f"delete sweep {name!r}", is_sure=is_sure or dry_run)
