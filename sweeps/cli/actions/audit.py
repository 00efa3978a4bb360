"""What `sweeps audit` does."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from segda.documents import as_json
from sweeps.audit.audit import audit
from sweeps.commands.places import ledger_to_read
from sweeps.documents.audit import audit_document
from sweeps.exit_codes import DIFFERS, DONE
from sweeps.findings import Check
from sweeps.reports.terminal import console
from sweeps.store import Store

_SHOWN = 10  # problems of one check


def audit_action(
    name: str,
    store_root: Path,
    ledger_url: str | None,
    no_mlflow: bool,
    as_document: bool,
) -> int:
    """Do `sweeps audit`; the arguments are the command's. Returns the exit code."""
    store = Store.at(store_root)
    with ledger_to_read(store, ledger_url) as ledger:
        checks = audit(name, ledger=ledger, store=store, mlflow=not no_mlflow)
    if as_document:
        click.echo(as_json(audit_document(name, checks)))
    else:
        _print(name, checks)
    return DONE if all(item.ok for item in checks) else DIFFERS


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
