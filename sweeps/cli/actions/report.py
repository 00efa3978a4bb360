"""What `sweeps report` does."""

from pathlib import Path

import click

from segda.documents import as_json
from sweeps.commands.reading import figures, report


def report_action(
    names: tuple[str, ...],
    store_root: Path,
    ledger_url: str | None,
    folder: Path | None,
    as_document: bool,
    oracle: bool,
) -> None:
    """Do `sweeps report`; the arguments are the command's."""
    if as_document:
        click.echo(as_json(figures(*names, store=store_root, ledger=ledger_url, oracle=oracle)))
        return
    page = report(*names, store=store_root, ledger=ledger_url, folder=folder)
    click.echo(f"{page}\n{page.with_suffix('.md')}")
