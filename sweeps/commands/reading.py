"""What is known of a sweep: how far it is, what its trials came to, and what to pick. It may still be running."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segda.errors import ConfigError
from sweeps.checks.makers import stored_spec
from sweeps.commands.places import ledger_to_read
from sweeps.defaults import DEFAULT_STORE
from sweeps.documents.report import comparison_document, report_document
from sweeps.execution.predictions import compared
from sweeps.metrics import is_oracle
from sweeps.reports.comparison_report import write_comparison
from sweeps.reports.marks import explained
from sweeps.reports.notebook import WIDTH, as_html, as_text
from sweeps.reports.status import SweepStatus, read_status
from sweeps.reports.status_table import render
from sweeps.reports.sweep_report import write_report
from sweeps.reports.view import load_view
from sweeps.selection.choice import select
from sweeps.store import Store
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

_IS = ("number", "kind", "name", "state", "seed")
_TOOK = ("step", "seconds", "failure", "error")


@dataclass(frozen=True, kw_only=True, repr=False)
class ShownStatus(SweepStatus):
    """How far a sweep is; a notebook shows it as `sweeps status` does."""

    def __repr__(self) -> str:
        return as_text(render(self, width=WIDTH))

    def _repr_html_(self) -> str:
        return as_html(render(self, width=WIDTH))


def status(name: str, *, store: Path | str = DEFAULT_STORE, ledger: str | None = None) -> ShownStatus:
    """Return how far a sweep is, from the ledger alone, so from any machine that reaches it.

    Args:
        name: the sweep.
        store: folder of the ledger.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
    """
    with ledger_to_read(Store.at(store), ledger) as opened:
        found = read_status(opened, name)
    return ShownStatus(**{field.name: getattr(found, field.name) for field in fields(found)})


def report(
    *names: str, store: Path | str = DEFAULT_STORE, ledger: str | None = None, folder: Path | str | None = None
) -> Path:
    """Write the report of a sweep: what to pick, and why; of several sweeps, a comparison.

    Args:
        *names: one sweep or several.
        store: folder of ledger, trials and reports.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        folder: where to write it, made if it is missing; unset: the sweep's folder, of several sweeps the store.

    Returns:
        The HTML page; the same tables as Markdown lie beside it, with the suffix `.md`.

    Raises:
        ConfigError: there is no such sweep, an incompatible version wrote it, or the report cannot be written there.
    """
    place, target = Store.at(store), None if folder is None else Path(folder).expanduser().absolute()
    with ledger_to_read(place, ledger) as opened:
        try:
            if len(names) == 1:
                return write_report(opened, place, names[0], folder=target).html
            return write_comparison(opened, place, names, folder=target).html
        except OSError as error:
            raise ConfigError(
                f"the report cannot be written ({error}); name another folder for it with --to"
            ) from error


def figures(
    *names: str, store: Path | str = DEFAULT_STORE, ledger: str | None = None, oracle: bool = False
) -> dict[str, Any]:
    """Return the figures of a sweep's report as plain data; of several sweeps, those of their comparison.

    Args:
        *names: one sweep or several.
        store: folder of ledger and trials.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        oracle: whether figures that are made from target labels are there too: to read, not to choose by.

    Returns:
        The document that `sweeps report --json` prints.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
    """
    place = Store.at(store)
    with ledger_to_read(place, ledger) as opened:
        views = [load_view(opened, place, name) for name in names]
    if len(views) == 1:
        return report_document(views[0], now=time.time(), oracle=oracle)
    return comparison_document(views, now=time.time(), oracle=oracle)


def results(
    name: str, *, store: Path | str = DEFAULT_STORE, ledger: str | None = None, oracle: bool = False
) -> "pd.DataFrame":
    """Return the trials of a sweep as a table of pandas, one row each.

    Columns are what a trial is (`number`, `kind`, `name` of a reference, `state`, `picked`, `seed`), its searched parameters by
    dotted path, the metrics that it reported last by name, the cost of its architecture (`macs`, `latency_ms`, ...), and what it
    took: `step`, `seconds` of worker time, `failure` and `error` of the last attempt that failed. `note` says what was not as with
    the others: fewer images at once, or labels of target images. A cell is empty where a trial has no such value. Only trials
    whose state is `complete` were trained in full.

    Args:
        name: the sweep.
        store: folder of the ledger.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.
        oracle: whether metrics that are made from target labels (`oracle/...`) are shown too: to read, not to choose by.

    Raises:
        ConfigError: there is no such sweep, or an incompatible version wrote it.
    """
    import pandas as pd

    with ledger_to_read(Store.at(store), ledger) as opened:
        spec = stored_spec(opened.sweep(name))
        trials = opened.trials(name)
    if spec.selection == "ensv":
        trials = compared(trials, store=Store.at(store), storage=spec.storage)
    picked, processes = select(trials, spec).picked, spec.resources.processes
    metrics = [{key: trial.metrics[key] for key in trial.metrics if oracle or not is_oracle(key)} for trial in trials]
    parts = [
        pd.DataFrame([_plain(trial, _IS) for trial in trials], columns=_IS),
        pd.DataFrame({"picked": [trial is picked for trial in trials]}),
        pd.DataFrame([dict(trial.params) for trial in trials]),
        pd.DataFrame(metrics),
        pd.DataFrame([dict(trial.profile) for trial in trials]),
        pd.DataFrame([_plain(trial, _TOOK) for trial in trials], columns=_TOOK),
        pd.DataFrame({"note": ["; ".join(explained(trial, processes=processes).values()) for trial in trials]}),
    ]
    return pd.concat(parts, axis="columns")


def _plain(trial: TrialRecord, names: Sequence[str]) -> dict[str, Any]:
    """Return attributes of a trial, enumerations as their text."""
    values = {name: getattr(trial, name) for name in names}
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in values.items()}
