"""`sweeps clean`: what sweeps can do without."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segda.documents import as_json
from segda.errors import ConfigError
from sweeps.cli.asking import check_json, check_terminal, confirm
from sweeps.cli.options import examples, options
from sweeps.labels import listed, size_label

if TYPE_CHECKING:
    from sweeps.housekeeping.cleaning import Cleaning


@click.command(
    "clean",
    epilog=examples(
        "sweeps clean camvid_day_to_dusk --dry-run",
        "sweeps clean camvid_day_to_dusk",
        "sweeps clean --all --yes",
        "sweeps clean --all --dry-run --json | jq .bytes",
    ),
)
@click.argument("name", required=False)
@click.option("--all", "is_all", is_flag=True, help="Clean every sweep that nobody drives.")
@options("dry_run", "yes", "store", "ledger", "json")
def clean_command(
    name: str | None,
    is_all: bool,
    dry_run: bool,
    is_sure: bool,
    store_root: Path,
    ledger_url: str | None,
    as_document: bool,
) -> None:
    """Remove what the sweep NAME can do without: checkpoints that nobody picks or goes on from, and leftovers of what was killed.

    Kept are the checkpoints of whatever is picked by any criterion, of finalists and candidates for deployment with their
    repetitions, of references, and of trials that go on; of a sweep that is not finished, all that were trained in full. `resume`,
    `report`, `audit` and `deploy` do afterwards what they did before. It is refused while a driver is at work.
    """
    check_json(as_document=as_document, dry_run=dry_run)
    if (name is None) is not is_all:
        raise ConfigError("say which sweep: a NAME, or --all")
    check_terminal("remove what is not needed", is_sure=is_sure or dry_run)
    from sweeps.commands.tidying import check_idle, clean  # takes seconds
    from sweeps.documents.tidying import cleaning_document

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


def lines_of(found: Sequence["Cleaning"]) -> list[str]:
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
