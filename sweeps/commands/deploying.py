"""From a finished sweep to the file to ship: what `sweeps deploy` does."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from segda.errors import ConfigError, SegdaError
from sweeps.checks.makers import stored_spec
from sweeps.commands.places import ledger_to_read
from sweeps.defaults import DEFAULT_STORE
from sweeps.deployment.budgets import FIGURES, budgets_of
from sweeps.deployment.deployment import Deployment, Request, deploy_sweep
from sweeps.execution.predictions import compared
from sweeps.file.parts import Constraint
from sweeps.file.spec import SweepSpec
from sweeps.ledger.lease import is_driven
from sweeps.reports.deployed import FOLDER, read_winner
from sweeps.selection.choice import select
from sweeps.store import Store
from sweeps.suggestions import suggest

USUAL_RATIO = 0.3


def deploy(
    name: str,
    *budgets: str,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    slim: Sequence[float] = (USUAL_RATIO,),
    candidates: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    again: bool = False,
    say: Callable[[str], None] = lambda line: click.echo(line, err=True),
) -> Deployment:
    """Make files of a finished sweep's best networks, measure each alone on this device, and write the best within budgets.

    Of each candidate's checkpoint: single precision, int8 (on a GPU fp16), and both of the network with fewer channels. What is
    chosen by is the sweep's own criterion. Whatever was made or measured is kept, so the same call goes on after a kill, and one
    with other budgets has little to do.

    Args:
        name: the sweep.
        *budgets: what the file must keep, such as `latency_ms <= 30`, on names in `sweeps.deployment.budgets.FIGURES`; none: the
            constraints of the sweep file, as far as they are on these.
        store: folder of ledger and trials; the sweep's folder there gets a folder `deploy`.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        slim: shares of the channels to take out, one further set of artefacts each.
        candidates: how many of the best trials; unset: the finalists of the sweep, three with one seed.
        device: `cpu` or `cuda`; unset: what trials of the sweep computed on.
        threads: of the processor; unset: those of a trial.
        data_roots: name of a data set -> its folder.
        again: whether to measure again what was measured in company.
        say: is told what goes on, one line each.

    Returns:
        All artefacts, and the winner if there is one.

    Raises:
        ConfigError: there is no such sweep, it is running, nothing of it can be picked, or a budget is none.
        SegdaError: a checkpoint, the data or the device cannot be used.

    Example:
        >>> found = deploy("demo", "latency_ms <= 30", store="runs")  # doctest: +SKIP
        >>> found.path, found.winner.artefact.figures()["latency_ms"]  # doctest: +SKIP
        (PosixPath('runs/demo/deploy/winner/network.onnx'), 12.3)
    """
    for ratio in slim:
        if not 0 < ratio < 1:
            raise ConfigError(f"slim expects shares of the channels between 0 and 1, e.g. 0.3, got {ratio:g}")
    wanted = budgets_of(budgets)
    place = Store.at(store)
    with ledger_to_read(place, ledger) as opened:
        spec = stored_spec(opened.sweep(name))
        wanted = wanted or _own_budgets(spec)
        if is_driven(opened, name):
            raise ConfigError(
                f"sweep {name!r} is running, and whoever measures beside it measures that, too; wait until it has ended, or "
                f"{suggest('stop', name)}"
            )
        trials = opened.trials(name)
    trials = compared(trials, store=place, storage=spec.storage)
    if unfinished := sum(not trial.state.is_finished for trial in trials):
        say(f"{unfinished} trials have not ended; {suggest('resume', name)} may find a better network")
    selection = select(trials, spec)
    if selection.picked is None:
        raise ConfigError(f"nothing of sweep {name!r} can be deployed: {selection.reason}")
    if selection.used == "oracle":
        say("this sweep chooses by target labels (selection: oracle), and so does what follows")
    request = Request(
        budgets=wanted,
        ratios=tuple(dict.fromkeys(slim)),
        candidates=candidates,
        device=device,
        threads=threads,
        data_roots=data_roots or {},
        again=again,
    )
    before = read_winner(place, name)
    try:
        found = deploy_sweep(spec, trials, selection, store=place, request=request, say=say)
    except SegdaError:
        raise
    except OSError as error:
        raise ConfigError(
            f"{place.deployment(name)} cannot be written ({error}); free space or see to the folder, and the same call goes on"
        ) from error
    if found.winner is None and before is not None:
        say(f"{found.folder / FOLDER} still has the winner within {', '.join(before['budgets'])} of an earlier call")
    return found


def _own_budgets(spec: SweepSpec) -> tuple[Constraint, ...]:
    found = tuple(item for item in spec.constraints if item.metric in FIGURES)
    if not found:
        raise ConfigError(
            "the sweep file has no constraint on what a file costs; say what this one may cost, e.g. --budget 'latency_ms <= 30'"
        )
    return found
