"""The choice among finalists by the labels of a few target images: what `sweeps pick` does."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from segda.errors import ConfigError, SegdaError
from segda.files import expanded
from sweeps.checks.makers import stored_spec
from sweeps.commands.places import open_ledger
from sweeps.defaults import DEFAULT_STORE
from sweeps.execution.predictions import compared
from sweeps.labelling.picking import Picking, pick_by_labels
from sweeps.ledger.lease import Lease
from sweeps.store import Store
from sweeps.suggestions import suggest

USUAL_LABELS = 20


def pick(
    name: str,
    *,
    labels: int | None = None,
    labels_from: Path | str | None = None,
    store: Path | str = DEFAULT_STORE,
    ledger: str | None = None,
    data_roots: Mapping[str, Path | str] | None = None,
    say: Callable[[str], None] = lambda line: click.echo(line, err=True),
) -> Picking:
    """Ask for the labels of a few target images, or take those that have come, and choose among a sweep's finalists by them.

    Labels come over days: the same call takes whatever there is, and asks for more. Nothing is lost if it is killed, and without
    new labels it says the same again.

    Args:
        name: the sweep.
        labels: how many labels there shall be in all, five or more; unset: as many as were wanted last, at first 20.
        labels_from: folder of labels to take, too: PNG files of train ids under the images' names, or the data set's own labels.
            Without it no label is read but what lies in the folder of answers.
        store: folder of ledger and trials; the sweep's folder there gets a folder `labels`.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        data_roots: name of a data set -> its folder.
        say: is told what goes on, one line each.

    Raises:
        ConfigError: there is no such sweep, somebody drives it, there is nothing to choose among, fewer labels are wanted than were
            asked for, or a label is none.
        SegdaError: networks or data cannot be used.
    """
    given = None if labels_from is None else expanded(labels_from).resolve()
    if given is not None and not given.is_dir():
        raise ConfigError(f"--labels-from expects a folder of labels, {given} is none")
    place = Store.at(store)
    with open_ledger(place, ledger, create=False) as opened:
        record = opened.sweep(name)
        spec = stored_spec(record)
        with Lease(opened, name).held(lambda: record.seconds):
            trials = opened.trials(name)
            if unfinished := sum(not trial.state.is_finished for trial in trials):
                say(f"{unfinished} trials have not ended; {suggest('resume', name)} may find a better network")
            try:
                return pick_by_labels(
                    spec,
                    compared(trials, store=place, storage=spec.storage),
                    ledger=opened,
                    store=place,
                    labels=labels,
                    given=given,
                    data_roots=data_roots or {},
                    usual=USUAL_LABELS,
                    say=say,
                )
            except SegdaError:
                raise
            except OSError as error:
                raise ConfigError(
                    f"{place.labels(name)} cannot be written ({error}); free space or see to the folder, and the same call goes on"
                ) from error
