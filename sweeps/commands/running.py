"""Run a sweep, and go on with one."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from segda.errors import ConfigError, SegdaError
from sweeps.checks.changes import Change, Effect, changes_between, check_trials_fit, with_sampler
from sweeps.checks.makers import load_spec, stored_spec
from sweeps.commands.cut_short import CutShortError, cut_short_told
from sweeps.commands.driving import SweepEnd, begin, changed, check_surroundings, drive
from sweeps.commands.places import open_ledger, remember_place
from sweeps.defaults import DEFAULT_STORE, TRACKING_VARIABLE
from sweeps.file.spec import SweepSpec
from sweeps.store import Store
from sweeps.suggestions import suggest
from sweeps.trial import TrialRecord

# A sweep as whoever wants it has it: the path of its file, the same as plain data, or already read.
SweepSource = SweepSpec | Path | str | Mapping[str, Any]


def run(
    sweep: SweepSource,
    *,
    changes: Mapping[str, Any] | None = None,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    address: str | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    name: str | None = None,
    trials: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    cost: float | None = None,
    tracking: str | None = None,
    progress: bool = True,
) -> SweepEnd:
    """Run a sweep until its budget is spent.

    It runs in this process, on Ray. Ctrl-C, or interrupting a notebook's kernel, ends it early with every checkpoint kept, and
    `resume` goes on; a second one ends it at once. In any thread but the main one no signal is heard; `sweeps stop` ends it there.
    When Ray's own processes die, the sweep ends in the same order, but Ray ends this process too within a minute.

    Args:
        sweep: path of a sweep file, the same as plain data, or what `load_spec` returned.
        changes: as in `load_spec`; not for what that returned.
        store: folder of ledger, checkpoints and reports; every node must see it under the same path.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        address: Ray cluster to run on, e.g. `auto`; unset: this machine alone.
        data_roots: name of a data set -> its folder.
        name: replaces the sweep's own.
        trials: replaces `budget.trials`.
        hours: replaces `budget.hours`.
        gpu_hours: replaces `budget.gpu_hours`.
        cost: replaces `budget.cost`.
        tracking: replaces `tracking.uri`; unset: the variable SWEEPS_TRACKING, else the sweep's own.
        progress: whether to show what happens.

    Returns:
        How it ended.

    Raises:
        ConfigError: the sweep is wrong or its name is taken; one line.
        CutShortError: the ledger's database or a disk went away.
        KeyboardInterrupt: it was ended at once.
        SegdaError: something else that the user can correct.
    """
    wanted = changed(
        _spec_of(sweep, data_roots, changes),
        name=name,
        data_roots=data_roots,
        trials=trials,
        hours=hours,
        gpu_hours=gpu_hours,
        cost=cost,
        tracking=tracking or os.environ.get(TRACKING_VARIABLE),
    )
    spec = with_sampler(wanted)
    if wanted.sampler.warm_start and not spec.sampler.warm_start:
        click.echo("note: warm_start has no effect: the budget covers every combination of the search space")
    check_surroundings(spec)
    place = Store.at(store)
    with cut_short_told("start it again"), open_ledger(place, ledger) as opened:
        is_new = begin(spec, ledger=opened, source=str(sweep) if isinstance(sweep, Path | str) else "Python")
        try:
            return drive(spec, ledger=opened, store=place, address=address, progress=progress)
        except CutShortError:
            raise
        except SegdaError:
            if is_new:
                opened.remove_sweep(spec.name)
            raise


def resume(
    name: str,
    *,
    sweep: SweepSource | None = None,
    accept_changes: bool = False,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    address: str | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    trials: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    cost: float | None = None,
    tracking: str | None = None,
    progress: bool = True,
    show_changes: Callable[[Sequence[Change]], None] | None = None,
) -> SweepEnd:
    """Go on with a sweep that was interrupted or whose driver died, or with a larger budget.

    Finished trials are not run again; unfinished ones continue from their checkpoints.

    Args:
        name: the sweep.
        sweep: go on under this version of it instead of the one that it began with. Budget, resources and places change freely;
            changes of what trials compute are refused. A sweep without trials takes any change.
        accept_changes: whether `sweep` may change what is searched or how trials are judged from now on.
        store: as in `run`.
        ledger: as in `run`.
        address: as in `run`.
        data_roots: as in `run`.
        trials: as in `run`.
        hours: as in `run`; counted from the sweep's beginning.
        gpu_hours: as in `run`; counted from the sweep's beginning.
        cost: as in `run`; counted from the sweep's beginning.
        tracking: as in `run`.
        progress: as in `run`.
        show_changes: called with what differs, before any of it is refused.

    Returns:
        How it ended this time.

    Raises:
        ConfigError: there is no such sweep, or it cannot go on so; one line.
        CutShortError: the ledger's database or a disk went away.
        KeyboardInterrupt: it was ended at once.
        SegdaError: something else that the user can correct.
    """
    place = Store.at(store)
    remember_place(place, ledger)
    with cut_short_told(f"go on with {suggest('resume', name)}"), open_ledger(place, ledger, create=False) as opened:
        stored = with_sampler(stored_spec(opened.sweep(name)))
        records = opened.trials(name)
        spec = changed(
            stored if sweep is None else _spec_of(sweep, data_roots),
            name=name,
            data_roots=data_roots,
            trials=trials,
            hours=hours,
            gpu_hours=gpu_hours,
            cost=cost,
            tracking=tracking or os.environ.get(TRACKING_VARIABLE),
        )
        spec = with_sampler(spec, begun=stored if records else None)
        changes = changes_between(stored, spec)
        if records:  # else there is nothing that a change could harm
            if show_changes is not None:
                show_changes(changes)
            _check(changes, spec, records, accept=accept_changes)
        listed = "; ".join(f"{change.path}: {change.before} -> {change.after}" for change in changes)
        event = f"a new driver goes on with it{' under changes: ' if listed else ''}{listed}"
        return drive(spec, ledger=opened, store=place, address=address, resumed=event, progress=progress)


def _spec_of(
    sweep: SweepSource, data_roots: Mapping[str, Path | str] | None, changes: Mapping[str, Any] | None = None
) -> SweepSpec:
    if not isinstance(sweep, SweepSpec):
        return load_spec(sweep, changes=changes, data_roots=data_roots)
    if changes:
        raise ConfigError("changes are put over a file or plain data; give them to load_spec")
    return sweep


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
            f"{', '.join(keys(Effect.RULES))} changes which trials are proposed, stopped or picked; accept that "
            "(--accept-changes), or go on as it began, without a changed file"
        )
