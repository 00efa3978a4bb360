"""What `sweeps clean` does."""

from collections.abc import Sequence
from pathlib import Path

import click

from segda.documents import as_json
from sweeps.cli.asking import confirm
from sweeps.commands.tidying import check_idle, clean
from sweeps.documents.tidying import cleaning_document
from sweeps.housekeeping.cleaning import Cleaning
from sweeps.labels import listed, size_label


def clean_action(
    name: str | None,
    is_all: bool,
    dry_run: bool,
    is_sure: bool,
    store_root: Path,
    ledger_url: str | None,
    as_document: bool,
) -> None:
    """Do `sweeps clean`; the arguments are the command's."""
    del is_all  # there is no name, then
    if name is not None and not dry_run:
        check_idle(name, store=store_root, ledger=ledger_url)
    names = () if name is None else (name,)
    found = clean(*names, dry_run=True, store=store_root, ledger=ledger_url)
    if as_document:
        click.echo(as_json(cleaning_document(found)))
        return
    for line in lines_of(found):
        click.echo(line, err=not dry_run)
    whole = sum(item.num_bytes for item in found)
    if dry_run or not any(item.freed for item in found):
        return
    if not confirm(f"remove {size_label(whole)}", is_sure=is_sure):
        click.echo("nothing was removed", err=True)
        return
    done = clean(*(item.sweep for item in found), store=store_root, ledger=ledger_url)
    click.echo(f"removed {size_label(sum(item.num_bytes for item in done))}")


def lines_of(found: Sequence[Cleaning]) -> list[str]:
    """Return what sweeps can do without, by sweep and kind, and what cannot be done afterwards.

    Args:
        found: of each sweep.
    """
    lines = []
    for item in found:
        lines.append(
            f"{item.sweep}: {size_label(item.num_bytes)}" if item.freed else f"{item.sweep}: there is nothing to remove"
        )
        for part in item.freed:
            of = f" of trial {listed(part.trials)}" if part.trials else ""
            lines.append(f"  {part.kind}: {size_label(part.num_bytes)}{of}; {part.why}")
    lost = dict.fromkeys(line for item in found for line in item.lost)
    return [*lines, *(f"not possible afterwards: {line}" for line in lost)]
