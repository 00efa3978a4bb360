"""One sweep in full: what was asked, how far it is, what to pick, where its files are, and what can be done with it next."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.checks.makers import stored_spec
from sweeps.execution.predictions import compared
from sweeps.execution.remote_folder import StorageError
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import SweepState
from sweeps.planning.account import Account, account_of
from sweeps.planning.plan import plan_path
from sweeps.reports.deployed import read_winner
from sweeps.reports.status import EVERY_TRIAL, SweepStatus, read_status
from sweeps.selection.choice import Selection, select
from sweeps.store import Store
from sweeps.suggestions import Place, remembered
from sweeps.trial import TrialRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepDetails:
    """A sweep at one moment.

    Attributes:
        status: how far it is, with all trials; of these, if the sweep chooses by `ensv`, with their pool figures.
        spec: its file.
        selection: what it picks so far.
        account: what was spent.
        store: where its files are.
        winner: facts about what `sweeps deploy` wrote last; None without.
        place: where commands that are shown find it.
    """

    status: SweepStatus
    spec: SweepSpec
    selection: Selection
    account: Account
    store: Store
    winner: Mapping[str, Any] | None = None
    place: Place = field(default_factory=remembered)

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.spec.name

    def places(self) -> dict[str, Path]:
        """Return what lies where, as far as it is there."""
        store, name = self.store, self.name
        known = {
            "folder": store.sweep(name),
            "ledger": store.ledger,
            "report": store.report(name),
            "plan": plan_path(store, name),
            "deployment": store.deployment(name),
            "mlflow": store.mlflow,
        }
        return {what: place for what, place in known.items() if place.exists()}

    def next_commands(self) -> list[tuple[str, str]]:
        """Return what can be done with the sweep now: (command, what it does)."""
        picked = self.selection.picked
        look = [] if picked is None else [(self._command("show", str(picked.number)), "the trial that it picks")]
        if self.status.is_driven:
            return [
                (self._command("status", "--watch"), "follow it"),
                (self._command("stop"), "end it and keep every checkpoint"),
                *look,
            ]
        if self.status.record.state is not SweepState.FINISHED:
            return [(self._command("resume"), "go on with it"), *look]
        return [
            *look,
            (self._command("report"), "write its report anew"),
            (self._command("audit"), "prove that nothing was lost and nothing counted twice"),
            (self._command("deploy"), "write the file to ship, within a budget"),
        ]

    def _command(self, verb: str, *words: str) -> str:
        return self.place.command(verb, self.name, *words)


def read_sweep(ledger: Ledger, store: Store, name: str) -> SweepDetails:
    """Read a sweep.

    Args:
        ledger: where it is.
        store: where its files are.
        name: of the sweep.

    Raises:
        ConfigError: there is no such sweep, or its file cannot be read by this version.
    """
    status = read_status(ledger, name, rows=EVERY_TRIAL)
    spec = stored_spec(status.record)
    trials = list(status.trials)
    return SweepDetails(
        status=status,
        spec=spec,
        selection=select(_comparable(trials, spec, store), spec),
        account=account_of(ledger, store, name, trials=trials),
        store=store,
        winner=read_winner(store, name),
    )


def _comparable(trials: list[TrialRecord], spec: SweepSpec, store: Store) -> list[TrialRecord]:
    """Return trials with what the sweep's criterion compares."""
    if spec.selection != "ensv":
        return trials
    try:
        return compared(trials, store=store, storage=spec.storage)
    except (StorageError, OSError) as error:  # does not answer, or the store is read-only
        log.warning("what trials predicted on other nodes is not compared: %s", error)
        return compared(trials, store=store, storage=None)
