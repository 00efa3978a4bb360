"""`sweeps audit`: proof that nothing was lost and nothing counted twice."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from segda.documents import as_json
from sweeps.cli.options import examples, options
from sweeps.commands.places import ledger_to_read
from sweeps.documents.audit import audit_document
from sweeps.findings import Check
from sweeps.reports.terminal import console
from sweeps.store import Store

DIFFERS = 1  # exit code
_SHOWN = 10  # problems of one check


@click.command(
    "audit",
    epilog=examples(
        "sweeps audit camvid_day_to_dusk",
        "sweeps audit camvid_day_to_dusk --no-mlflow",
        "sweeps audit camvid_day_to_dusk --json | jq .holds",
    ),
)
@click.argument("name")
@options("store", "ledger")
@click.option("--no-mlflow", is_flag=True, help="Compare ledger and files only.")
@options("json")
@click.pass_context
def audit_command(
    context: click.Context,
    name: str,
    store_root: Path,
    ledger_url: str | None,
    no_mlflow: bool,
    as_document: bool,
) -> None:
    """Check that the sweep NAME has every trial once and every report once, in ledger, files and MLflow alike.

    Rows of the ledger, files and the report are also compared with the digests that were kept when they were written.

    Nothing is changed. Exit code 0: everything holds; 1: something differs, or MLflow cannot be reached to be compared.
    """
    from sweeps.audit.audit import audit  # takes a second

    store = Store.at(store_root)
    with ledger_to_read(store, ledger_url) as ledger:
        checks = audit(name, ledger=ledger, store=store, mlflow=not no_mlflow)
    if as_document:
        click.echo(as_json(audit_document(name, checks)))
    else:
        _print(name, checks)
    if not all(item.ok for item in checks):
        context.exit(DIFFERS)


def _print(name: str, checks: Sequence[Check]) -> None:
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
