"""A sweep as a report reads it: the ledger's records, the files in the trials' folders, and what follows from them."""

import itertools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from segda.datasets import DATASETS
from segda.discriminator_health import ACCURACIES, discriminator_trouble
from segda.errors import SegdaError
from segda.image_confusions import ORACLE_CONFUSIONS, SOURCE_CONFUSIONS
from sweeps.checks.makers import stored_spec
from sweeps.execution.predictions import compared, corrected_best
from sweeps.execution.remote import fetch
from sweeps.execution.remote_folder import StorageError
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.lease import is_alive
from sweeps.ledger.records import STARTED, Event, SweepRecord
from sweeps.metrics import CRITERIA, SOURCE_MIOU, TARGET_MIOU
from sweeps.paths import value_at
from sweeps.planning.account import Account, account_of
from sweeps.reports import plots
from sweeps.reports.criteria import CriterionRow, criterion_rows
from sweeps.reports.deployed import read_winner
from sweeps.reports.labelled import read_labelled
from sweeps.reports.marks import mark, meanings
from sweeps.reports.standing_tables import Curves, StandingRow, standing_rows
from sweeps.search.proposer import Search
from sweeps.selection.analysis import best_by, pareto_front, uses_target_labels
from sweeps.selection.choice import Selection, criteria_of, select
from sweeps.selection.guards import source_only_baseline
from sweeps.selection.seeds import SeedGroup, seed_groups
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord, TrialState

MOST_SHOWN = 500  # trials that a page shows one by one

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepView:
    """A sweep as a report reads it.

    Attributes:
        record: the sweep.
        spec: its file.
        trials: its trials, by number, with their pool figures (`sweeps.selection.pool`).
        events: what happened to it, but for the beginnings of attempts.
        curves: trial number -> (step, source validation mean IoU).
        discriminator_troubles: trial number -> what is wrong with its discriminator, in one sentence; of the others nothing.
        target_curves: trial number -> (step, target mean IoU) where trainings scored the target on the way (oracle).
        results: trial number -> content of `result.json`.
        environments: trial number -> content of `environment.json`.
        folders: trial number -> folder of its files.
        importance: importance of each parameter by path (see `Search.importance`); empty with too few trials.
        spent: what was spent, beside what was planned; None where nobody has added it up.
        is_driven: whether a process works on the sweep right now.
        deployed: facts about the winner that `sweeps deploy` wrote last; None without one.
        labelled: facts about the pick by labels (`sweeps pick`); None without a label.
    """

    record: SweepRecord
    spec: SweepSpec
    trials: Sequence[TrialRecord]
    events: Sequence[Event] = ()
    curves: Mapping[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    target_curves: Mapping[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    discriminator_troubles: Mapping[int, str] = field(default_factory=dict)
    results: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    environments: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    folders: Mapping[int, Path] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    spent: Account | None = None
    is_driven: bool = False
    deployed: Mapping[str, Any] | None = None
    labelled: Mapping[str, Any] | None = None

    @cached_property
    def selection(self) -> Selection:
        """The choice by the sweep's own criterion."""
        return select(self.trials, self.spec)

    @property
    def account(self) -> Sequence[tuple[str, str]]:
        """What was spent, beside what was planned: (what, how much)."""
        return () if self.spent is None else self.spent.rows()

    @cached_property
    def picked(self) -> TrialRecord | None:
        """The chosen trial."""
        return self.selection.picked

    @cached_property
    def source_only(self) -> TrialRecord | None:
        """The best network without adaptation."""
        return source_only_baseline(self.trials, like=self.picked)

    @cached_property
    def upper_bound(self) -> TrialRecord | None:
        """The best network that was trained on target labels, by the search's own seed."""
        bounds = [trial for trial in self.trials if uses_target_labels(trial)]
        return best_by([trial for trial in bounds if trial.kind is not TrialKind.REPLICATE], TARGET_MIOU)

    @cached_property
    def shown(self) -> Sequence[TrialRecord]:
        """The trials that tables and figures show one by one, by number: all, unless there are more than people read.

        Then references, repetitions, what a criterion picks, fronts and the rest of the best, trials that are open, and of those
        that have ended the last.
        """
        if len(self.trials) <= MOST_SHOWN:
            return self.trials
        first = [*self.networks.values(), *(group.trial for group in self.seed_groups)]
        first += [row.picked for row in self.criteria if row.picked is not None]
        for metric, cost in itertools.product(plots.QUALITIES, plots.COSTS):
            first += pareto_front(self.trials, metric=metric, cost=cost)
        picked = {trial.number for trial in first}
        place = {number: place for place, number in enumerate(self.selection.ranked)}

        def order(trial: TrialRecord) -> tuple[bool, int, bool, int]:
            is_first = trial.number in picked or trial.kind is not TrialKind.SEARCH
            rank = place.get(trial.number, len(place))
            return not is_first, rank if rank < MOST_SHOWN // 2 else MOST_SHOWN, trial.state.is_finished, -trial.number

        return sorted(sorted(self.trials, key=order)[:MOST_SHOWN], key=lambda trial: trial.number)

    @cached_property
    def marks(self) -> Mapping[int, Mapping[str, str]]:
        """Number of trial -> its marks and what they mean."""
        return meanings(self.trials, processes=self.spec.resources.processes)

    @cached_property
    def networks(self) -> dict[str, TrialRecord]:
        """Networks that are worth a look side by side: label -> trial."""
        shown: dict[str, TrialRecord] = {}
        if self.picked is not None:
            shown[f"picked: trial {self.picked.number}{mark(self.picked)}"] = self.picked
        if self.source_only is not None and self.source_only is not self.picked:
            shown[f"source only: trial {self.source_only.number}{mark(self.source_only)}"] = self.source_only
        for trial in self.trials:
            is_reference = trial.kind is TrialKind.REFERENCE and trial.state is TrialState.COMPLETE
            if is_reference and trial is not self.source_only:
                shown[f"{trial.name or 'reference'}: trial {trial.number}{mark(trial)}"] = trial
        return shown

    @cached_property
    def criteria(self) -> list[CriterionRow]:
        """What every criterion picks, what it loses on the target, and how well it orders the candidates."""
        choices = {
            criterion: select(self.trials, self.spec, criterion=criterion) for criterion in criteria_of(self.spec)
        }
        worth = {
            criterion: corrected_best(choices[criterion].ranked, self.folders, name, seed=self.spec.seed)
            for criterion, name in (("source_validation", SOURCE_CONFUSIONS), ("oracle", ORACLE_CONFUSIONS))
        }
        return criterion_rows(self.trials, choices, worth)

    @cached_property
    def criterion(self) -> CriterionRow:
        """The row of the sweep's own criterion."""
        return next(row for row in self.criteria if row.criterion == self.spec.selection)

    @cached_property
    def seed_groups(self) -> list[SeedGroup]:
        """What the further seeds of each finalist say."""
        return seed_groups(self.trials, metric=CRITERIA[self.selection.used])

    @cached_property
    def picked_seeds(self) -> SeedGroup | None:
        """What the further seeds of the chosen trial say; None without any."""
        return next((group for group in self.seed_groups if group.trial is self.picked), None)

    @cached_property
    def baseline(self) -> TrialRecord | None:
        """What gains are told against: the reference that the file names, or else the best network without adaptation."""
        if self.spec.baseline is None:
            return self.source_only
        named = [trial for trial in self.trials if trial.name == self.spec.baseline]
        return next((trial for trial in named if trial.state is TrialState.COMPLETE), None)

    @cached_property
    def standings(self) -> list[StandingRow]:
        """What each method and each reference is worth over seeds."""
        return standing_rows(
            self.trials,
            ranked=self.selection.ranked,
            baseline=self.baseline,
            upper_bound=self.upper_bound,
            curves=self.target_curves,
            paths=self.spec.finalists_of_each,
        )

    @cached_property
    def sample(self) -> Mapping[str, Any]:
        """A full configuration for what all trials share; the sweep file's base before the first trial."""
        return self.trials[0].config if self.trials else dict(self.record.spec.get("base") or {})

    @property
    def source_split(self) -> str:
        """Name of the split that source validation figures are from."""
        return f"{self._domain('source')} val"

    @property
    def target_split(self) -> str:
        """Name of the split that oracle figures are from."""
        dataset = DATASETS.get(str(value_at(self.sample, "data.target.dataset")))
        return f"{self._domain('target')} {dataset.report_split if dataset else 'labelled split'}"

    def _domain(self, side: str) -> str:
        names = [value_at(self.sample, f"data.{side}.{part}") for part in ("dataset", "domain")]
        return " / ".join(str(name) for name in names if name) or side

    @property
    def device(self) -> str:
        """Maker's name of the device that efficiency was measured on: as noted, or else where the first trial ran."""
        info = self.record.info
        if info.device is not None:
            return info.device.name
        if self.devices:
            return self.devices[0]
        return str(info.environment.get("device_name") or "a device that was not recorded")

    @property
    def devices(self) -> list[str]:
        """Makers' names of the devices that trials ran on, in the order of their first trial."""
        names = [self.environments[number].get("device_name") for number in sorted(self.environments)]
        return list(dict.fromkeys(str(name) for name in names if name))

    @property
    def unfinished(self) -> int:
        """Number of trials that still wait or run."""
        return sum(not trial.state.is_finished for trial in self.trials)


def load_view(ledger: Ledger, store: Store, sweep: str) -> SweepView:
    """Read all that a report needs.

    Args:
        ledger: where the sweep is.
        store: where its files are; those of ended trials that are at the sweep's storage address are brought there first, and
            missing files are left out.
        sweep: name of the sweep.

    Raises:
        ConfigError: there is no such sweep, or its file cannot be read by this version.
    """
    record = ledger.sweep(sweep)
    spec = stored_spec(record)
    trials = ledger.trials(sweep)
    reported = ledger.curves(sweep, (SOURCE_MIOU, TARGET_MIOU, *ACCURACIES))
    _fetch_small_files(trials, store, storage=spec.storage)
    trials = compared(trials, store=store, storage=None)
    folders = {trial.number: store.trial(trial) for trial in trials}
    return SweepView(
        record=record,
        spec=spec,
        trials=trials,
        events=[event for event in ledger.events(sweep) if event.kind != STARTED],
        curves=_finite_points(reported[SOURCE_MIOU], trials),
        target_curves=_finite_points(reported[TARGET_MIOU], trials),
        discriminator_troubles=_discriminator_troubles(reported),
        results=_json_files(folders, "result.json"),
        environments=_json_files(folders, "environment.json"),
        folders=folders,
        importance=_importance(spec, trials),
        spent=account_of(ledger, store, sweep, trials=trials),
        is_driven=is_alive(record.driver, record.driver_seen),
        deployed=read_winner(store, sweep),
        labelled=read_labelled(store, sweep),
    )


def _finite_points(reported: Curves, trials: Sequence[TrialRecord]) -> dict[int, list[tuple[int, float]]]:
    return {
        trial.number: [(step, value) for step, value in reported.get(trial.number, ()) if math.isfinite(value)]
        for trial in trials
    }


def _discriminator_troubles(reported: Mapping[str, Curves]) -> dict[int, str]:
    histories: dict[int, dict[int, dict[str, float]]] = {}
    for metric in ACCURACIES:
        for number, curve in reported[metric].items():
            for step, value in curve:
                histories.setdefault(number, {}).setdefault(step, {})[metric] = value
    troubles = {
        number: discriminator_trouble([reports[step] for step in sorted(reports)])
        for number, reports in histories.items()
    }
    return {number: trouble for number, trouble in troubles.items() if trouble is not None}


def _fetch_small_files(trials: Sequence[TrialRecord], store: Store, *, storage: str | None) -> None:
    """Bring here what a report reads of trials that ran elsewhere."""
    if storage is None:
        return
    try:
        for trial in trials:
            if trial.state.is_finished:
                fetch(trial, store=store, storage=storage)
    except (StorageError, OSError) as error:  # does not answer, or the store is read-only
        logger.warning("the report lacks files of trials that ran on other nodes: %s", error)


def _json_files(folders: Mapping[int, Path], name: str) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for number, folder in folders.items():
        path = folder / name
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                logger.warning("%s cannot be read and is left out of the report: %s", path, error)
                continue
            if isinstance(content, dict):
                found[number] = content
    return found


def _importance(spec: SweepSpec, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the importance of each parameter; a sampler that cannot tell is no reason to have no report."""
    try:
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        return dict(Search(spec, spec.space, complete).importance())
    except (SegdaError, ValueError, RuntimeError) as error:
        logger.warning("no parameter importance in the report: %s", error)
        return {}
