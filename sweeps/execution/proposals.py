"""Which trial comes next: references, then proposals of the search, then finalists with further seeds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from segda.config import TrainConfig
from segda.errors import ConfigError
from segda.splits import what_is_read
from segda.tunable import Scalar
from sweeps.execution.costs import Costs
from sweeps.execution.early_end import EarlyEnd
from sweeps.execution.predictions import compared
from sweeps.execution.reuse import take_over
from sweeps.execution.trials import Trials
from sweeps.execution.warm_start import warm_start_of
from sweeps.file.parts import SeedBudget
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Allotment
from sweeps.metrics import CRITERIA, is_doubtful
from sweeps.planning.profiles import Architecture, Profile, infeasible
from sweeps.search.proposer import Search, objective_value
from sweeps.selection.causes import most_frequent_cause
from sweeps.selection.choice import collapse_guard, rank, used_criterion
from sweeps.selection.finalists import default_trial, finalists_of, unstable_finalists
from sweeps.selection.guards import collapse
from sweeps.selection.seed_budget import next_run, runs_of
from sweeps.store import Store
from sweeps.trial import TrialKind, TrialRecord, TrialState, code_of, trial_key

MAX_INFEASIBLE_IN_A_ROW = 50  # proposals that are not trained before the search counts as exhausted


def _has_its_say(record: TrialRecord) -> bool:
    return record.state.is_finished and not record.is_set_aside


def _listed(params: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{path}: {value}" for path, value in params.items()) or "no settings of its own"


class Proposal(NamedTuple):
    """A new trial, which is in the ledger.

    Attributes:
        record: the trial.
        config: its training configuration.
    """

    record: TrialRecord
    config: TrainConfig


class Proposals:
    """Source of a sweep's trials; each is a row in the ledger before anybody hears of it."""

    def __init__(
        self,
        spec: SweepSpec,
        *,
        allotment: Allotment,
        ledger: Ledger,
        store: Store,
        profiles: Mapping[Architecture, Profile],
        fingerprint: Callable[[TrainConfig], str],
        train: str,
        trials: Trials,
        early_end: EarlyEnd,
        note: Callable[[str], None],
    ) -> None:
        """Take over a sweep from its ledger.

        Args:
            spec: the sweep.
            allotment: what its trials get when it begins; how many run at once decides what a reproducible search depends on.
            ledger: where its trials are written.
            store: where files of earlier trials are.
            profiles: efficiency of every architecture that it can reach.
            fingerprint: hash of the data that a configuration reads.
            train: training function as `module:name`.
            trials: the sweep's; the owner keeps them up to date.
            early_end: says which proposals are not worth to begin.
            note: is told one line about each earlier sweep at the first start, and one when the search ends early.

        Raises:
            ConfigError: no architecture satisfies the constraints, trials do not fit the search space, or a reference was trained
                with other settings than the sweep file has now.
        """
        self._spec = spec
        self._concurrency = allotment.concurrency
        self._ledger = ledger
        self._store = store
        self._profiles = profiles
        self._fingerprint = fingerprint
        self._fingerprints: dict[str, str] = {}
        self._train = train
        self._trials = trials
        self._records = trials.records
        self._early_end = early_end
        self._note = note
        self._infeasible_in_a_row = 0
        self._is_search_over = False
        self._repeated: list[TrialRecord] | None = None
        self._no_run_after: tuple[tuple[int, bool], ...] | None = None  # repetitions, and whether they had ended
        infeasible(spec, profiles)
        self._check_references()
        space = spec.space
        taken = warm_start_of(
            spec,
            space,
            ledger=ledger,
            efficiency=lambda config: profiles[Architecture.of(config, spec.deploy)].metrics,
            fingerprint=self._data,
            note=note,
        )
        self._search = Search(spec, space, trials.in_order, warm_start=taken)
        self._costs = Costs(
            spec,
            space,
            allotment=allotment,
            ledger=ledger,
            store=store,
            profiles=profiles,
            has_begun=bool(self._records),
        )

    def tell(self, record: TrialRecord) -> None:
        """Let the search learn how a trial ended."""
        self._search.tell(record)

    def next(self) -> Proposal | None:
        """Add the next trial to the ledger and return it, with its configuration: it is made and checked once.

        It may be finished: infeasible, or with a result that was there already.

        Returns:
            The trial; None if there is none, or none before others have ended.
        """
        return self._reference() or self._proposal() or self._replicate()

    def settled(self, number: int) -> frozenset[int] | None:
        """Return which search trials may influence another one; None: all.

        With `sampler.reproducible` these are the ones `concurrency` numbers before it and earlier. They have ended before it
        is proposed, so what they say does not depend on how fast anything ran, or on what the machines did to them.

        Args:
            number: a search trial that exists, or the next new number.
        """
        if not self._spec.sampler.reproducible:
            return None
        searched = sorted(record.number for record in self._records.values() if record.kind is TrialKind.SEARCH)
        position = sum(other < number for other in searched)
        return frozenset(searched[: max(0, position - self._concurrency + 1)])

    def _reference(self) -> Proposal | None:
        known = {record.name for record in self._records.values() if record.kind is TrialKind.REFERENCE}
        for name, params in self._spec.references.items():
            if name not in known:
                # A reference is named by a person, yet a constraint says what must not be trained at all.
                return self._add(TrialKind.REFERENCE, params, seed=self._spec.first_seed, name=name)
        return None

    def _proposal(self) -> Proposal | None:
        if self._is_search_over or self._num_proposed() >= self._spec.budget.trials:
            return None
        if sum(record.is_set_aside for record in self._records.values()) >= self._spec.budget.trials:
            return None  # the machines fail whatever comes; `left_over` says so
        reason = self._reason_to_end()
        if reason is not None:
            self._is_search_over = True
            self._note(f"search ended after {self._num_proposed()} trials: {reason}")
            return None
        number = len(self._records)
        settled = self.settled(number)
        if settled is not None and not all(_has_its_say(self._records[other]) for other in settled):
            return None
        weighing = self._costs.weighing(self._records.values(), proposed=self._num_proposed())
        params = self._search.ask(number, settled=settled, weighing=weighing)
        proposal = self._add(TrialKind.SEARCH, params, seed=self._spec.first_seed)
        is_infeasible = proposal.record.state is TrialState.INFEASIBLE
        self._infeasible_in_a_row = self._infeasible_in_a_row + 1 if is_infeasible else 0
        return proposal

    def _reason_to_end(self) -> str | None:
        if self._search.is_exhausted:
            return "every combination of the search space was proposed; the budget has more trials than there are"
        if self._infeasible_in_a_row >= MAX_INFEASIBLE_IN_A_ROW:
            return (
                f"the last {MAX_INFEASIBLE_IN_A_ROW} proposals broke a constraint or were dominated before training; loosen "
                "the constraint or leave architectures out that cannot meet it or cannot come to lie on the front"
            )
        reached = self._target_reached()
        return None if reached is None else f"trial {reached} reached budget.target {self._spec.budget.target:g}"

    def _num_proposed(self) -> int:
        """Return how many places of the budget are taken: not by what a constraint or the machines kept from being trained."""
        return sum(
            record.kind is TrialKind.SEARCH
            and record.state is not TrialState.INFEASIBLE
            and (self._keeps_places or not record.is_set_aside)
            for record in self._records.values()
        )

    @property
    def _keeps_places(self) -> bool:
        """Whether what the machines failed keeps its place: with another trial instead a reproducible search would not be one."""
        return self._spec.sampler.reproducible

    @property
    def left_over(self) -> str | None:
        """Why less was trained than was asked for, though all has ended: the machines failed what nobody took the place of."""
        aside = [record for record in self._records.values() if record.is_set_aside]
        is_full = self._num_proposed() >= self._spec.budget.trials or self._target_reached() is not None
        if is_full and not self._keeps_places:
            aside = [record for record in aside if record.kind is not TrialKind.SEARCH]
        if not aside:
            return None
        failed = f"{len(aside)} of {len(self._records)} trials were failed by the machines, not by their configurations"
        return f"{failed}: {most_frequent_cause(aside)}"

    def _target_reached(self) -> int | None:
        target, objective = self._spec.budget.target, self._spec.objectives[0]
        if target is None:
            return None
        metric = objective.metric
        sign = 1.0 if objective.direction == "maximize" else -1.0
        for record in self._records.values():
            if record.kind is TrialKind.SEARCH and record.state is TrialState.COMPLETE:
                value = None if is_doubtful(record.profile, metric) else objective_value(record, metric)
                # A collapsed network is never picked, however good it looks.
                if value is not None and sign * value >= sign * target and not collapse(record, self._records.values()):
                    return record.number
        return None

    def _replicate(self) -> Proposal | None:
        # A reference may be the source-only network that candidates are measured by, so it has a say in who the finalists are.
        is_open = any(record.kind is not TrialKind.REPLICATE for record in self._trials.unfinished)
        if not self._spec.has_further_seeds or is_open:
            return None
        if self._repeated is None:
            ranked = rank(self._compared(), self._spec)
            self._repeated = [*self._references_to_repeat(), *finalists_of(ranked, self._spec)]
        found = self._next_seed() if self._spec.seed_budget is None else self._next_run(self._spec.seed_budget)
        if found is None:
            return None
        number, seed = found
        return self._add(TrialKind.REPLICATE, self._records[number].params, seed=seed, parent=number)

    def _next_seed(self) -> tuple[int, int] | None:
        """Return the next of the listed seeds that a finalist was not trained with, and the finalist before it."""
        known = {
            (record.parent, record.seed) for record in self._records.values() if record.kind is TrialKind.REPLICATE
        }
        wanted = ((trial.number, seed) for seed in self._spec.listed_seeds[1:] for trial in self._repeated or ())
        return next((run for run in wanted if run not in known), None)

    def _next_run(self, budget: SeedBudget) -> tuple[int, int] | None:
        """Return the finalist, and the seed, of which the runs so far say that it is worth most to know."""
        repeated = [record for record in self._trials.in_order if record.kind is TrialKind.REPLICATE]
        known = tuple((record.number, record.state.is_finished) for record in repeated)
        if self._no_run_after == known:
            return None  # asked again while others run
        found = self._decided_run(repeated, budget)
        self._no_run_after = known if found is None else None
        return found

    def _decided_run(self, repeated: Sequence[TrialRecord], budget: SeedBudget) -> tuple[int, int] | None:
        if sum(record.is_set_aside for record in repeated) >= budget.budget:
            return None  # the machines fail whatever comes; `left_over` says so
        finalists = self._repeated or []
        if not finalists:
            return None
        trials = self._compared()
        used = used_criterion(trials, self._spec)
        runs = runs_of(trials, metric=CRITERIA[used])
        if self._spec.sampler.reproducible:
            settled = max(0, len(runs) - self._concurrency + 1)
            if any(run.is_open for run in runs[:settled]):
                return None
            runs = [run if index < settled else run.unknown() for index, run in enumerate(runs)]
        default = default_trial(trials, self._spec)
        return next_run(
            [trial.number for trial in finalists],
            runs,
            budget,
            default=None if default is None else default.number,
            given_up=unstable_finalists(finalists, trials, collapse_guard(trials, used)),
            seed=self._spec.seed,
        )

    def _references_to_repeat(self) -> list[TrialRecord]:
        """Return the references that are trained with the further seeds too: those that the search's own seed could train."""
        if not self._spec.repeat_references:
            return []
        return [
            record
            for record in self._trials.in_order
            if record.kind is TrialKind.REFERENCE and record.state is TrialState.COMPLETE
        ]

    def _compared(self) -> list[TrialRecord]:
        """Return all trials with what the sweep's criterion reads of them."""
        trials = self._trials.in_order
        if self._spec.selection != "ensv":
            return trials
        return compared(trials, store=self._store, storage=self._spec.storage)

    def _add(
        self,
        kind: TrialKind,
        params: Mapping[str, Scalar],
        *,
        seed: int,
        parent: int | None = None,
        name: str | None = None,
    ) -> Proposal:
        config = self._spec.train_config(params, seed=seed)
        profile = self._profiles[Architecture.of(config, self._spec.deploy)]
        # A replicate's architecture was trained before.
        obstacle = None if kind is TrialKind.REPLICATE else profile.obstacle(self._spec)
        now = time.time()
        data, code = self._data(config), code_of(config, train=self._train)
        record = TrialRecord(
            sweep=self._spec.name,
            number=len(self._records),
            key=trial_key(config.canonical(), data, code),
            kind=kind,
            params=dict(params),
            config=config.model_dump(mode="json"),
            seed=seed,
            state=TrialState.QUEUED if obstacle is None else TrialState.INFEASIBLE,
            parent=parent,
            name=name,
            profile=dict(profile.metrics),
            error=obstacle,
            created=now,
            finished=None if obstacle is None else now,
        )
        taken = None
        if self._spec.reuse and not obstacle:
            taken = take_over(record, ledger=self._ledger, store=self._store, train=self._train)
        if taken is None and obstacle is None:
            record = self._unless_dominated(record)
        record, points = taken or (record, [])
        self._ledger.add_trial(record, points=points, data=data, code=code)
        if kind is not TrialKind.REPLICATE:
            self._repeated = self._no_run_after = (
                None  # they follow from all others, which do not change any more once they have ended
            )
        return Proposal(record, config)

    def _unless_dominated(self, record: TrialRecord) -> TrialRecord:
        """Return a new trial as it is, or as one that is not trained because of what is known of its architecture."""
        decision = self._early_end.before_training(record, settled=self.settled(record.number))
        if not decision.stop:
            return record
        return replace(record, state=TrialState.INFEASIBLE, error=decision.reason, finished=record.created)

    def _data(self, config: TrainConfig) -> str:
        key = what_is_read(config)
        if key not in self._fingerprints:
            self._fingerprints[key] = self._fingerprint(config)
        return self._fingerprints[key]

    def _check_references(self) -> None:
        for record in self._records.values():
            if record.kind is TrialKind.REFERENCE and record.name in self._spec.references:
                wanted = self._spec.references[record.name]
                if dict(record.params) != wanted:
                    raise ConfigError(
                        f"reference {record.name!r} of sweep {self._spec.name!r} is trial {record.number} with "
                        f"{_listed(record.params)}, the sweep file now says {_listed(wanted)}; give the changed one another name"
                    )
