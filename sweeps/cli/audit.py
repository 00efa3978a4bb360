"""`sweeps audit`: proof that nothing was lost and nothing counted twice."""

from pathlib import Path

import click
from rich.table import Table

from sweeps.cli.options import examples, options
from sweeps.commands.places import ledger_to_read
from sweeps.reports.terminal import console
from sweeps.store import Store

DIFFERS = 1  # exit code
_SHOWN = 10  # problems of one check


@click.command(
    "audit",
    epilog=examples(
        "sweeps audit camvid_day_to_dusk",
        "sweeps audit camvid_day_to_dusk --no-mlflow",
    ),
)
@click.argument("name")
@options("store", "ledger")
@click.option("--no-mlflow", is_flag=True, help="Compare ledger and files only.")
@click.pass_context
def audit_command(context: click.Context, name: str, store_root: Path, ledger_url: str | None, no_mlflow: bool) -> None:
    """Check that the sweep NAME has every trial once and every report once, in ledger, files and MLflow alike.

    Rows of the ledger, files and the report are also compared with the digests that were kept when they were written.

    Nothing is changed. Exit code 0: everything holds; 1: something differs, or MLflow cannot be reached to be compared.
    """
    from sweeps.audit.audit import audit  # takes a second

    store = Store.at(store_root)
    with ledger_to_read(store, ledger_url) as ledger:
        checks = audit(name, ledger=ledger, store=store, mlflow=not no_mlflow)
    table = Table("what must hold", "looked at", "result", title=f"audit of {name}")
    table.columns[1].justify = "right"
    for item in checks:
        result = "[green]holds[/]" if item.ok else f"[red]{len(item.problems)} wrong[/]"
        table.add_row(item.claim, str(item.count), f"{result} ({item.note})" if item.note else result)
    console().print(table)
    failed = [item for item in checks if not item.ok]
    for item in failed:
        for problem in item.problems[:_SHOWN]:
            click.echo(problem)
        if len(item.problems) > _SHOWN:
            click.echo(f"and {len(item.problems) - _SHOWN} more of this kind")
    if failed:
        context.exit(DIFFERS)
