"""`sweeps clean`: what sweeps can do without."""

import click

from segda.cli_command import Command
from segda.errors import ConfigError
from sweeps.cli.asking import check_json, check_terminal
from sweeps.cli.options import examples, options


@click.command(
    "clean",
    cls=Command,
    action="sweeps.cli.actions.clean:clean_action",
    epilog=examples(
        "sweeps clean camvid_day_to_dusk --dry-run",
        "sweeps clean camvid_day_to_dusk",
        "sweeps clean --all --yes",
        "sweeps clean --all --dry-run --json | jq .bytes",
    ),
)
@options("name or none")
@click.option("--all", "is_all", is_flag=True, help="Clean every sweep that nobody drives.")
@options("dry_run", "yes", "store", "ledger", "json")
def clean_command(name: str | None, is_all: bool, dry_run: bool, is_sure: bool, as_document: bool, **_: object) -> None:
    """Remove what the sweep NAME can do without: checkpoints that nobody picks or goes on from, and leftovers of what was killed.

    Kept are the checkpoints of whatever is picked by any criterion, of finalists and candidates for deployment with their
    repetitions, of references, and of trials that go on; of a sweep that is not finished, all that were trained in full. `resume`,
    `report`, `audit` and `deploy` do afterwards what they did before. It is refused while a driver is at work.
    """
    check_json(as_document=as_document, dry_run=dry_run)
    if (name is None) is not is_all:
        raise ConfigError("say which sweep: a NAME, or --all")
    check_terminal("remove what is not needed", is_sure=is_sure or dry_run)
