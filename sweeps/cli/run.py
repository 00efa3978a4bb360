"""`sweeps run` and `sweeps resume`."""

from pathlib import Path

import click
from rich.table import Table

from segda.errors import ConfigError
from sweeps.checks.changes import Change, Effect, changes_between, check_trials_fit, with_sampler
from sweeps.checks.makers import load_spec, stored_spec
from sweeps.cli.driving import begin, changed, drive
from sweeps.cli.options import console, examples, open_ledger, options
from sweeps.file.spec import SweepSpec
from sweeps.store import Store
from sweeps.trial import TrialRecord


@click.command(
    "run",
    epilog=examples(
        "sweeps run my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps run my_sweep.yaml --address auto --store /shared/runs",
        "sweeps run my_sweep.yaml --trials 4 --name first_try",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options("store", "ledger", "address", "roots", "trials", "hours", "gpu_hours", "tracking")
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
    gpu_hours: float | None,
    tracking: str | None,
    name: str | None,
) -> None:
    """Run the sweep that FILE describes.

    Ctrl-C stops it and keeps every checkpoint; `sweeps resume` goes on.
    """
    wanted = changed(
        load_spec(file, roots=roots), name=name, trials=trials, hours=hours, gpu_hours=gpu_hours, tracking=tracking
    )
    spec = with_sampler(wanted)
    if wanted.sampler.warm_start and not spec.sampler.warm_start:
        click.echo("note: warm_start has no effect: the budget covers every combination of the search space")
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
@options("store", "ledger", "address", "roots", "trials", "hours", "gpu_hours", "tracking")
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
    gpu_hours: float | None,
    tracking: str | None,
    file: Path | None,
    accept_changes: bool,
) -> None:
    """Go on with the sweep NAME after Ctrl-C, a crash, a reboot, or with a larger budget.

    Finished trials are not run again; unfinished ones continue from their checkpoints.

    With --file, what differs from the sweep as it began is shown. Budget, resources and places change freely; changes of the
    search or of its rules want --accept-changes; changes of what trials compute are refused. A sweep without trials takes any.
    """
    store = Store.at(store_root)
    with open_ledger(store, ledger_url, create=False) as ledger:
        stored = with_sampler(stored_spec(ledger.sweep(name)))
        records = ledger.trials(name)
        spec = changed(
            stored if file is None else load_spec(file, roots=roots),
            name=name,
            roots=roots,
            trials=trials,
            hours=hours,
            gpu_hours=gpu_hours,
            tracking=tracking,
        )
        spec = with_sampler(spec, begun=stored if records else None)
        changes = changes_between(stored, spec)
        if records:  # else there is nothing that a change could harm
            _show(changes)
            _check(changes, spec, records, accept=accept_changes)
        listed = "; ".join(f"{change.path}: {change.before} -> {change.after}" for change in changes)
        event = f"a new driver goes on with it{' under changes: ' if listed else ''}{listed}"
        context.exit(drive(spec, ledger=ledger, store=store, address=address, resumed=event))


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


def _check(changes: list[Change], spec: SweepSpec, trials: list[TrialRecord], *, accept: bool) -> None:
    """Refuse changes under which a sweep that has trials cannot or should not go on."""

    def keys(effect: Effect) -> list[str]:
        return [change.path for change in changes if change.effect is effect]

    references = [path for path in keys(Effect.RESULTS) if path.startswith("references.")]
    computed = [path for path in keys(Effect.RESULTS) if path not in references]
    if computed:
        raise ConfigError(
            f"{', '.join(computed)} changes what trials compute, so new results could not be compared with those of {spec.name!r}; "
            f"start a sweep of another name; with `sampler: {{warm_start: [{spec.name}]}}` it tries the best of this one first"
        )
    if references:
        raise ConfigError(
            f"{', '.join(references)} changes a reference that this sweep has trained; leave it as it was, and add the changed one "
            "under another name"
        )
    check_trials_fit(spec, trials)
    if keys(Effect.RULES) and not accept:
        raise ConfigError(
            f"{', '.join(keys(Effect.RULES))} changes which trials are proposed, stopped or picked; go on with --accept-changes, "
            "or leave --file out to go on as it began"
        )
