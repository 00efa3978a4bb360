"""`sweeps run` and `sweeps resume`."""

from pathlib import Path

import click
from rich.table import Table

from segda.errors import ConfigError
from sweeps.changes import Change, Effect, changes_between
from sweeps.cli.driving import begin, changed, drive, stored_spec
from sweeps.cli.options import console, examples, open_ledger, options
from sweeps.spec import load_spec
from sweeps.store import Store


@click.command(
    "run",
    epilog=examples(
        "sweeps run my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps run my_sweep.yaml --address auto --store /shared/runs",
        "sweeps run my_sweep.yaml --trials 4 --name first_try",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options("store", "ledger", "address", "roots", "trials", "hours", "tracking")
@click.option("--name", help="Replace the name in the sweep file, e.g. to run it a second time.")
@click.pass_context
def run_command(
    context: click.Context,
    file: Path,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    trials: int | None,
    hours: float | None,
    tracking: str | None,
    name: str | None,
) -> None:
    """Run the sweep that FILE describes.

    Ctrl-C stops it and keeps every checkpoint; `sweeps resume` goes on.
    """
    spec = changed(load_spec(file, roots=roots), name=name, trials=trials, hours=hours, tracking=tracking)
    store = Store.at(store_root)
    with open_ledger(store, ledger_url) as ledger:
        begin(spec, ledger=ledger, source=str(file))
        context.exit(drive(spec, ledger=ledger, store=store, address=address))


@click.command(
    "resume",
    epilog=examples(
        "sweeps resume camvid_day_to_dusk",
        "sweeps resume camvid_day_to_dusk --trials 24 --hours 12",
        "sweeps resume camvid_day_to_dusk --file my_sweep.yaml --accept-changes",
    ),
)
@click.argument("name")
@options("store", "ledger", "address", "roots", "trials", "hours", "tracking")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Go on under this version of the sweep file instead of the one that it began with.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on although FILE changes what is searched or how trials are judged from now on.",
)
@click.pass_context
def resume_command(
    context: click.Context,
    name: str,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    trials: int | None,
    hours: float | None,
    tracking: str | None,
    file: Path | None,
    accept_changes: bool,
) -> None:
    """Go on with the sweep NAME after Ctrl-C, a crash, a reboot, or with a larger budget.

    Finished trials are not run again; unfinished ones continue from their checkpoints.

    With --file, what differs from the sweep as it began is shown. Budget, resources and places change freely; changes of the
    search or of its rules want --accept-changes; changes of what trials compute are refused.
    """
    store = Store.at(store_root)
    with open_ledger(store, ledger_url, create=False) as ledger:
        stored = stored_spec(ledger, name)
        wanted = stored if file is None else load_spec(file, roots=roots)
        spec = changed(wanted, name=name, roots=roots, trials=trials, hours=hours, tracking=tracking)
        changes = changes_between(stored, spec)
        _show(changes)
        _check(changes, name, accept=accept_changes)
        ledger.update_sweep(name, spec=spec.canonical())
        listed = "; ".join(f"{change.path}: {change.before} -> {change.after}" for change in changes)
        ledger.add_event(name, "resumed", f"a new driver goes on with it{' under changes: ' if listed else ''}{listed}")
        context.exit(drive(spec, ledger=ledger, store=store, address=address))


def _show(changes: list[Change]) -> None:
    if changes:
        table = Table("key", "as it began", "now", "effect", title="changes of the sweep file", title_justify="left")
        effects = {
            Effect.NONE: "takes effect",
            Effect.RULES: "other trials from now on",
            Effect.RESULTS: "other results",
        }
        for change in changes:
            table.add_row(change.path, change.before, change.after, effects[change.effect])
        console().print(table)


def _check(changes: list[Change], name: str, *, accept: bool) -> None:
    """Refuse changes under which a sweep cannot or should not go on."""
    for effect, wanted in ((Effect.RESULTS, False), (Effect.RULES, accept)):
        keys = [change.path for change in changes if change.effect is effect]
        if not keys or wanted:
            continue
        if effect is Effect.RESULTS:
            raise ConfigError(
                f"{', '.join(keys)} changes what trials compute, so new results could not be compared with those of {name!r}; "
                f"start a sweep of another name, and let it learn from this one with `sampler: {{warm_start: [{name}]}}`"
            )
        raise ConfigError(
            f"{', '.join(keys)} changes which trials are proposed, stopped or picked; go on with --accept-changes, or leave "
            "--file out to go on as it began"
        )
