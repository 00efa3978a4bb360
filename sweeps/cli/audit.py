"""`sweeps audit`: proof that nothing was lost and nothing counted twice."""

import click

from segda.cli_command import Command
from sweeps.cli.options import examples, options


@click.command(
    "audit",
    cls=Command,
    action="sweeps.cli.actions.audit:audit_action",
    epilog=examples(
        "sweeps audit camvid_day_to_dusk",
        "sweeps audit camvid_day_to_dusk --no-mlflow",
        "sweeps audit camvid_day_to_dusk --json | jq .holds",
    ),
)
@options("name")
@options("store", "ledger")
@click.option("--no-mlflow", is_flag=True, help="Compare ledger and files only.")
@options("json")
def audit_command(**_: object) -> None:
    """Check that the sweep NAME has every trial once and every report once, in ledger, files and MLflow alike.

    Rows of the ledger, files and the report are also compared with the digests that were kept when they were written.

    Nothing is changed. Exit code 0: everything holds; 1: something differs, or MLflow cannot be reached to be compared.
    """
