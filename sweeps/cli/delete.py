"""`sweeps delete`: a sweep taken out of ledger and store."""

from pathlib import Path

import click

from segda.documents import as_json
from sweeps.cli.asking import check_json, check_terminal, confirm
from sweeps.cli.options import examples, options
from sweeps.labels import size_label


@click.command(
    "delete",
    epilog=examples(
        "sweeps delete first_try --dry-run",
        "sweeps delete first_try",
        "sweeps delete first_try --mlflow --yes",
    ),
)
@click.argument("name")
@click.option(
    "--mlflow", is_flag=True, help="Delete its runs in MLflow too, and the experiment if that holds no others."
)
@options("dry_run", "yes", "store", "ledger", "json")
def delete_command(
    name: str,
    mlflow: bool,
    dry_run: bool,
    is_sure: bool,
    store_root: Path,
    ledger_url: str | None,
    as_document: bool,
) -> None:
    """Delete the sweep NAME with its trials, checkpoints, report, deployment and logs, here and at its storage address.

    It is refused while a driver is at work, or another sweep needs this one. Whatever ends it in the middle, the same command goes
    on. MLflow keeps the runs unless --mlflow is said; figures of architectures stay, since all sweeps share them.
    """
    check_json(as_document=as_document, dry_run=dry_run)
    check_terminal(f"delete sweep {name!r}", is_sure=is_sure or dry_run)
    from sweeps.commands.tidying import check_idle, delete  # takes seconds
    from sweeps.documents.tidying import deletion_document
    from sweeps.reports.formats import count

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
