"""What `sweeps delete` does."""

from pathlib import Path

import click

from segda.documents import as_json
from sweeps.cli.asking import confirm
from sweeps.commands.tidying import check_idle, delete
from sweeps.documents.tidying import deletion_document
from sweeps.labels import size_label
from sweeps.reports.formats import count


def delete_action(
    name: str,
    mlflow: bool,
    dry_run: bool,
    is_sure: bool,
    store_root: Path,
    ledger_url: str | None,
    as_document: bool,
) -> None:
    """Do `sweeps delete`; the arguments are the command's."""
    if not dry_run:
        check_idle(name, store=store_root, ledger=ledger_url)
    found = delete(name, mlflow=mlflow, dry_run=True, store=store_root, ledger=ledger_url)
    if as_document:
        click.echo(as_json(deletion_document(found)))
        return
    for part in found.parts:
        click.echo(
            f"{part.what}: {count(part.files, 'file')}, {size_label(part.num_bytes)} in {part.where}", err=not dry_run
        )
    click.echo(f"ledger: {count(found.trials, 'trial')} with {count(found.reports, 'report')}", err=not dry_run)
    for line in (*found.notes, found.mlflow):
        click.echo(line, err=not dry_run)
    if dry_run:
        return
    if not confirm(f"delete sweep {name!r}, {size_label(found.num_bytes)}", is_sure=is_sure):
        click.echo(f"{name} stays as it is", err=True)
        return
    delete(name, mlflow=mlflow, store=store_root, ledger=ledger_url)
    click.echo(f"deleted {name}, {size_label(found.num_bytes)}")
