"""The command line `sweeps`: check, run and continue sweeps, and read what came out."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from segda.cli_errors import run_cli
from segda.config import TrainConfig
from segda.datasets.base import resolve_root
from segda.environment import describe_environment
from segda.errors import ConfigError, SegdaError
from segda.splits import data_fingerprint
from sweeps.ledger import Ledger
from sweeps.profiles import sample_config
from sweeps.progress import view
from sweeps.report import load_view, summary_table, write_report
from sweeps.space import SearchSpace
from sweeps.spec import SweepSpec, load_spec
from sweeps.store import Store
from sweeps.trial import TrialState
from sweeps.worker import DEFAULT_TRAIN

# Ray and MLflow take seconds to import; commands that only read do without them.

DEFAULT_STORE = "runs"
_WIDTH_OF_FILES = 200


def _parse_roots(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Read NAME=PATH options."""
    roots = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise click.BadParameter(f"expected NAME=PATH, e.g. camvid=/data/camvid, got {value!r}")
        roots[name] = Path(path).expanduser().resolve()
    return roots


def _examples(*lines: str) -> str:
    """Return an epilog that click does not wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add options that several commands share."""
    known = {
        "store": click.option(
            "--store",
            "store_root",
            type=click.Path(path_type=Path),
            default=DEFAULT_STORE,
            show_default=True,
            help="Folder of ledger, checkpoints and reports; every node must see it under the same path.",
        ),
        "ledger": click.option(
            "--ledger",
            "ledger_url",
            envvar="SWEEPS_LEDGER",
            metavar="URL",
            help="Database of the ledger, e.g. postgresql+psycopg2://user@host/db, or the variable SWEEPS_LEDGER. "
            "[default: ledger.db in the store]",
        ),
        "address": click.option(
            "--address", help="Ray cluster to run on, e.g. auto or 10.0.0.1:6379. [default: this machine alone]"
        ),
        "roots": click.option(
            "--data-root",
            "roots",
            metavar="NAME=PATH",
            callback=_parse_roots,
            multiple=True,
            help="Where a data set lies; repeat for several. [default: the variable SEGDA_<NAME>_ROOT]",
        ),
        "trials": click.option("--trials", type=click.IntRange(min=1), help="Replace budget.trials of the sweep file."),
        "hours": click.option(
            "--hours",
            type=click.FloatRange(min=0, min_open=True),
            help="Replace budget.hours of the sweep file; it counts over all resumes.",
        ),
    }

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_examples(
        "sweeps check my_sweep.yaml     what it would do, without doing it",
        "sweeps run my_sweep.yaml       run it here, or on a cluster with --address",
        "sweeps status                  all sweeps and how far they are",
        "sweeps resume my_sweep         go on after Ctrl-C, a crash or a reboot",
        "sweeps report my_sweep         write the report: what to pick, and why",
    ),
)
@click.version_option(package_name="segda")
def sweeps() -> None:
    """Search for the segmentation network that is best on another domain within a budget.

    A sweep file says what to vary, what to optimize and how much to spend.

    Exit codes: 0 done, 2 something to correct, 75 stopped by SIGTERM, 130 stopped by Ctrl-C; after 75 and 130 resume.
    """


@sweeps.command(
    epilog=_examples(
        "sweeps check my_sweep.yaml --data-root camvid=/data/camvid",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@_options("roots")
def check(file: Path, roots: dict[str, Path]) -> None:
    """Check a sweep file and show what it would do."""
    spec = load_spec(file, roots=roots)
    space = SearchSpace.from_spec(spec)
    sample = sample_config(spec)
    console = _console()
    console.print(f"[bold]{spec.name}[/bold]: {spec.question or 'no question given'}")
    table = Table("parameter", "values", "when", title="search space", title_justify="left")
    for row in space.describe():
        table.add_row(row.path, row.range, row.condition)
    console.print(table)
    for line in _plan(spec, space, sample):
        console.print(line, markup=False, highlight=False)
    missing = _print_roots(sample, console)
    if missing:
        raise ConfigError(
            f"{len(missing)} data set{'s are' if len(missing) > 1 else ' is'} missing: {', '.join(missing)}"
        )


def _plan(spec: SweepSpec, space: SearchSpace, sample: TrainConfig) -> list[str]:
    combinations = space.num_combinations()
    architectures = [", ".join(str(value) for value in chosen.values()) for chosen in space.architectures() if chosen]
    replicates = spec.finalists * (len(spec.seeds) - 1)
    trials = spec.budget.trials + len(spec.references) + replicates
    hours = "no limit of time" if spec.budget.hours is None else f"at most {spec.budget.hours:g} hours"
    lines = [
        f"combinations: {combinations if combinations is not None else 'without end (continuous parameters)'}",
        f"architectures: {'; '.join(architectures) if architectures else f'{sample.model.name}, {sample.model.backbone}'}",
        f"trials: {trials} ({spec.budget.trials} of the search, {len(spec.references)} references, {replicates} replicates)",
        f"steps: {trials * sample.steps} at most ({sample.steps} per trial), {hours}, {spec.budget.concurrency} at a time",
        f"each trial takes {spec.resources.cpus:g} CPUs and {spec.resources.gpus:g} GPUs",
        "objectives: " + ", ".join(f"{item.direction} {item.metric}" for item in spec.objectives),
        "constraints: " + (", ".join(str(item) for item in spec.constraints) or "none"),
        f"sampler: {spec.sampler.name}; scheduler: {spec.scheduler.name}; selection: {spec.selection}",
    ]
    if spec.selection == "oracle":
        lines.append("selection: oracle reads labels of the target domain; its results cannot be had without them")
    return lines


def _print_roots(sample: TrainConfig, console: Console) -> list[str]:
    """Print where each data set lies; return those that are missing."""
    missing = []
    for domain in {item.dataset: item for item in (sample.data.source, sample.data.target)}.values():
        try:
            root = resolve_root(domain.dataset, domain.root)
            state = f"{root} ({'found' if root.is_dir() else 'missing'})"
            found = root.is_dir()
        except SegdaError as error:
            state, found = str(error), False
        console.print(f"data set {domain.dataset}: {state}", markup=False, highlight=False)
        if not found:
            missing.append(domain.dataset)
    return missing


@sweeps.command(
    epilog=_examples(
        "sweeps run my_sweep.yaml --data-root camvid=/data/camvid",
        "sweeps run my_sweep.yaml --address auto --store /shared/runs",
        "sweeps run my_sweep.yaml --trials 4 --name first_try",
    )
)
@click.argument("file", type=click.Path(path_type=Path))
@_options("store", "ledger", "address", "roots", "trials", "hours")
@click.option("--name", help="Replace the name in the sweep file, e.g. to run it a second time.")
@click.pass_context
def run(
    context: click.Context,
    file: Path,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    trials: int | None,
    hours: float | None,
    name: str | None,
) -> None:
    """Run the sweep that FILE describes.

    Ctrl-C stops it and keeps every checkpoint; `sweeps resume` goes on.
    """
    spec = changed(load_spec(file, roots=roots), name=name, trials=trials, hours=hours)
    store = Store.at(store_root)
    with _open(store, ledger_url) as ledger:
        begin(spec, ledger=ledger, source=str(file))
        context.exit(drive(spec, ledger=ledger, store=store, address=address))


@sweeps.command(
    epilog=_examples(
        "sweeps resume camvid_day_to_dusk",
        "sweeps resume camvid_day_to_dusk --trials 24 --hours 12",
    )
)
@click.argument("name")
@_options("store", "ledger", "address", "roots", "trials", "hours")
@click.pass_context
def resume(
    context: click.Context,
    name: str,
    store_root: Path,
    ledger_url: str | None,
    address: str | None,
    roots: dict[str, Path],
    trials: int | None,
    hours: float | None,
) -> None:
    """Go on with the sweep NAME after Ctrl-C, a crash, a reboot, or with a larger budget.

    Finished trials are not run again; unfinished ones continue from their checkpoints.
    """
    store = Store.at(store_root)
    with _open(store, ledger_url, create=False) as ledger:
        spec = changed(stored_spec(ledger, name), roots=roots, trials=trials, hours=hours)
        ledger.update_sweep(name, spec=spec.canonical())
        ledger.add_event(name, "resumed", "a new driver goes on with it")
        context.exit(drive(spec, ledger=ledger, store=store, address=address))


@sweeps.command(
    epilog=_examples(
        "sweeps status",
        "sweeps status camvid_day_to_dusk",
    )
)
@click.argument("name", required=False)
@_options("store", "ledger")
def status(name: str | None, store_root: Path, ledger_url: str | None) -> None:
    """Show all sweeps of a store, or the trials of the sweep NAME."""
    store = Store.at(store_root)
    with _open(store, ledger_url, create=False) as ledger:
        if name is not None:
            console = _console()
            console.print(summary_table(load_view(ledger, store, name), width=console.width))
            return
        stopped: list[str] = []
        table = Table("sweep", "state", "complete", "pruned", "failed", "infeasible", "open", "begun")
        for sweep in ledger.sweeps():
            states = [record.state for record in ledger.trials(sweep.name)]
            counts = [
                states.count(state)
                for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.INFEASIBLE)
            ]
            state = sweep.state or "new"
            if state == "running" and not store.is_driven(sweep.name):
                state = "stopped"
                stopped.append(sweep.name)
            begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.created))
            left = len(states) - sum(counts)
            table.add_row(sweep.name, state.replace("_", " "), *(str(count) for count in counts), str(left), begun)
        _console().print(table)
        for name in stopped:
            click.echo(f"{name} lost its driver; go on with `sweeps resume {name}`")


@sweeps.command(
    epilog=_examples(
        "sweeps report camvid_day_to_dusk",
    )
)
@click.argument("name")
@_options("store", "ledger")
def report(name: str, store_root: Path, ledger_url: str | None) -> None:
    """Write the report of the sweep NAME: what to pick, and why. It may still be running."""
    store = Store.at(store_root)
    with _open(store, ledger_url, create=False) as ledger:
        paths = write_report(ledger, store, name)
        click.echo(f"{paths.html}\n{paths.markdown}")


@sweeps.command(
    epilog=_examples(
        "sweeps sync camvid_day_to_dusk",
    )
)
@click.argument("name")
@_options("store", "ledger")
def sync(name: str, store_root: Path, ledger_url: str | None) -> None:
    """Send to MLflow what it does not have of the sweep NAME, or everything if its data were deleted."""
    from sweeps.tracking import Tracker

    store = Store.at(store_root)
    with _open(store, ledger_url, create=False) as ledger:
        spec = stored_spec(ledger, name)
        tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
        tracker.connect()
        tracker.send(final=not store.is_driven(name))
        click.echo(f"MLflow is up to date: {tracker.where}")


# What the commands share


def _console() -> Console:
    """Return a console; a file or a pipe gets tables as wide as they want to be."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_OF_FILES)


def _open(store: Store, ledger_url: str | None, *, create: bool = True) -> Ledger:
    return Ledger.open(ledger_url or store.ledger, create=create)


def stored_spec(ledger: Ledger, name: str) -> SweepSpec:
    """Return the sweep file that the ledger has of a sweep.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
    """
    return SweepSpec.model_validate(dict(ledger.sweep(name).spec))


def changed(
    spec: SweepSpec,
    *,
    name: str | None = None,
    roots: Mapping[str, Path] | None = None,
    trials: int | None = None,
    hours: float | None = None,
) -> SweepSpec:
    """Return a sweep with what the command line replaces."""
    plain = spec.canonical()
    if name is not None:
        plain["name"] = name
    for field, value in (("trials", trials), ("hours", hours)):
        if value is not None:
            plain["budget"][field] = value
    for side in ("source", "target"):
        domain = plain["base"]["data"][side]
        if roots and domain["dataset"] in roots:
            domain["root"] = str(roots[domain["dataset"]])
    return SweepSpec.model_validate(plain)


def begin(spec: SweepSpec, *, ledger: Ledger, source: str) -> None:
    """Add a new sweep to the ledger.

    Args:
        spec: the sweep.
        ledger: where to keep it.
        source: where it came from, for people.

    Raises:
        ConfigError: there is a sweep of that name; the message says how to go on with it.
    """
    plain = spec.canonical()
    known = {sweep.name: sweep.spec for sweep in ledger.sweeps()}
    if spec.name in known:
        if known[spec.name] == plain:
            raise ConfigError(f"sweep {spec.name!r} was started before; go on with `sweeps resume {spec.name}`")
        raise ConfigError(
            f"another sweep is called {spec.name!r}; give this one a name of its own with --name, or go on with the other one: "
            f"`sweeps resume {spec.name}`"
        )
    ledger.create_sweep(spec.name, spec=plain, info={"environment": describe_environment(), "file": source})


def drive(
    spec: SweepSpec,
    *,
    ledger: Ledger,
    store: Store,
    address: str | None = None,
    train: str = DEFAULT_TRAIN,
    fingerprint: Callable[[TrainConfig], str] | None = None,
) -> int:
    """Run or continue a sweep with progress on the terminal, tracking, and a report at the end.

    Args:
        spec: the sweep, which the ledger has.
        ledger: where its state is kept.
        store: where its files go.
        address: Ray cluster; unset: this machine.
        train: training function as `module:name`.
        fingerprint: hash of the data that a configuration reads; unset: segda's, with a progress bar on a terminal.

    Returns:
        Exit code: 0 done, 75 or 130 interrupted.

    Raises:
        SegdaError: something that the user can correct.
    """
    from sweeps.runner import run_sweep
    from sweeps.tracking import Tracker

    console = _console()
    tracker = Tracker(spec.tracking.uri, experiment=spec.tracking.experiment, ledger=ledger, spec=spec, store=store)
    tracker.start()
    try:
        with view(spec, ledger.trials(spec.name), console=console) as listener:
            outcome = run_sweep(
                spec,
                ledger=ledger,
                store=store,
                address=address,
                train=train,
                fingerprint=fingerprint or partial(data_fingerprint, progress=sys.stderr.isatty()),
                listener=listener,
            )
        paths = write_report(ledger, store, spec.name)
    finally:
        is_synced = tracker.stop()
    console.print(summary_table(load_view(ledger, store, spec.name), width=console.width))
    click.echo(f"report:  {paths.html}")
    click.echo(f"MLflow:  {tracker.where}")
    if not is_synced:
        click.echo(
            f"MLflow does not have everything ({tracker.last_error}); `sweeps sync {spec.name}` sends the rest",
            err=True,
        )
    if outcome.interrupted is not None:
        click.echo(f"{outcome.interrupted.name}: stopped; go on with `sweeps resume {spec.name}`", err=True)
    elif outcome.out_of_time:
        click.echo(
            f"budget.hours is spent before all trials were run; go on with `sweeps resume {spec.name} --hours H`",
            err=True,
        )
    return outcome.exit_code


def main() -> None:
    """Run the command line and exit."""
    with contextlib.suppress(BrokenPipeError):
        run_cli(sweeps, interrupted="Interrupted; what was finished is kept, and `sweeps resume NAME` goes on.")
