"""A sweep or a trial in full."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sweeps.commands.places import ledger_to_read
from sweeps.defaults import DEFAULT_STORE
from sweeps.documents.details import sweep_document, trial_document
from sweeps.reports.details_table import next_lines, render_sweep, render_trial
from sweeps.reports.notebook import as_html, as_text
from sweeps.reports.sweep_details import SweepDetails, read_sweep
from sweeps.reports.trial_details import TrialDetails, read_trial
from sweeps.store import Store


@dataclass(frozen=True, kw_only=True, repr=False)
class ShownSweep(SweepDetails):
    """A sweep in full; a notebook shows it as `sweeps show` does."""

    def document(self, *, oracle: bool = False) -> dict[str, Any]:
        """Return it as `sweeps show --json` prints it.

        Args:
            oracle: whether figures that are made from target labels are there too.
        """
        return sweep_document(self, oracle=oracle)

    def __repr__(self) -> str:
        return "\n".join([as_text(render_sweep(self)), *next_lines(self)])

    def _repr_html_(self) -> str:
        return as_html(render_sweep(self)) + _as_html(next_lines(self))


@dataclass(frozen=True, kw_only=True, repr=False)
class ShownTrial(TrialDetails):
    """A trial in full; a notebook shows it as `sweeps show` does, without figures that are made from target labels."""

    def document(self, *, oracle: bool = False) -> dict[str, Any]:
        """Return it as `sweeps show --json` prints it; see `ShownSweep.document`."""
        return trial_document(self, oracle=oracle)

    def __repr__(self) -> str:
        return "\n".join([as_text(render_trial(self, oracle=False)), *next_lines(self)])

    def _repr_html_(self) -> str:
        return as_html(render_trial(self, oracle=False)) + _as_html(next_lines(self))


def _as_html(lines: Sequence[str]) -> str:
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def show(
    name: str, trial: int | None = None, *, store: Path | str = DEFAULT_STORE, ledger: str | None = None
) -> ShownSweep | ShownTrial:
    """Return a sweep in full, or one of its trials.

    Args:
        name: the sweep.
        trial: number of the trial; unset: the sweep itself.
        store: folder of ledger and trials.
        ledger: URL of the ledger's database; unset: the variable SWEEPS_LEDGER, else a file in the store.

    Raises:
        ConfigError: there is no such sweep or trial, or an incompatible version wrote it.
    """
    place = Store.at(store)
    found: SweepDetails | TrialDetails
    with ledger_to_read(place, ledger) as opened:
        if trial is None:
            found = read_sweep(opened, place, name)
            return ShownSweep(**{field.name: getattr(found, field.name) for field in fields(found)})
        found = read_trial(opened, place, name, trial)
    return ShownTrial(**{field.name: getattr(found, field.name) for field in fields(found)})
