"""Proposes configurations with Optuna; the only file that imports it.

The study is built anew from the ledger's records for every proposal, and the sampler is seeded from the sweep's seed and the
trial's number. So a proposal is a function of the sweep file, the number and what is known of the other trials at that moment,
and no random state has to be saved: a restarted sweep proposes what the interrupted one would have proposed. The order in which
trials ended does not matter. What does matter is which of them had ended: with several trials at a time that depends on timing,
so two runs of one sweep agree trial for trial only with a concurrency of one.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from segda.errors import ConfigError
from segda.tunable import Scalar
from sweeps.space import Categorical, Distribution, Int, SearchSpace, same
from sweeps.spec import SweepSpec
from sweeps.trial import FailureClass, TrialKind, TrialRecord, TrialState

MIN_TRIALS_FOR_IMPORTANCE = 10  # fully trained; with fewer, PED-ANOVA ranks noise
_FAILED = "failed"  # constraint that a trial breaks by having failed
_REDRAWS = 20  # times that a proposal known already is drawn again before the unused ones are listed


class Search:
    """The search of one sweep. Used by one thread."""

    def __init__(self, spec: SweepSpec, space: SearchSpace, trials: Sequence[TrialRecord]) -> None:
        """Take what is known from the ledger.

        Args:
            spec: the sweep.
            space: its search space.
            trials: records of any kind and state; references and replicates are passed over.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._space = space
        self._directions = [objective.direction for objective in spec.objectives]
        self._distributions = {item.path: _distribution(item.distribution) for item in space.parameters}
        self._num_combinations = space.num_combinations()
        self._trials: dict[int, FrozenTrial | None] = {}
        for record in trials:
            self.tell(record)

    def ask(self, number: int) -> dict[str, Scalar]:
        """Propose the parameters of a trial, and count it as running until told otherwise.

        A finite space is searched without repetition until every combination was proposed once.

        Args:
            number: the trial's number in the sweep.

        Returns:
            Dotted path -> value, of the parameters that exist.
        """
        known = [trial.params for index, trial in self._known() if index != number]
        study = self._study(without=number)
        params: dict[str, Scalar] = {}
        for draw in range(_REDRAWS):
            # The trials of earlier draws stay in the study as running: the sampler keeps away from them.
            study.sampler = self._sampler(number, draw)
            params = self._suggest(study)
            if self._num_combinations is None or not _is_among(params, known):
                break
        else:
            unused = [item for item in self._space.combinations() if not _is_among(item, known)]
            if unused:
                params = unused[_seed(self._spec.seed, number, _REDRAWS) % len(unused)]
        self._trials[number] = self._running(params)
        return params

    def tell(self, record: TrialRecord) -> None:
        """Take note of a trial's present state.

        Trained in full: its objectives. Pruned: its objective so far, if there is but one. Failed or infeasible: pruned, with a
        broken constraint, so that the sampler stays away; told as failed it would be forgotten and proposed again. Lost with its
        worker for good: nothing, since the configuration is not to blame.

        Args:
            record: the trial as the ledger knows it.

        Raises:
            ConfigError: its parameters do not fit the search space.
        """
        if record.kind is not TrialKind.SEARCH:
            return
        if not self._space.contains(record.params):
            raise ConfigError(
                f"trial {record.number} of sweep {record.sweep!r} does not fit the search space; the sweep file was changed "
                "since: undo that, or start a sweep of another name"
            )
        self._trials[record.number] = self._trial(record)

    @property
    def is_exhausted(self) -> bool:
        """Whether every combination of a finite space was proposed; a further proposal repeats one."""
        if self._num_combinations is None:
            return False
        distinct: list[Mapping[str, Scalar]] = []
        for _, trial in self._known():
            if not _is_among(trial.params, distinct):
                distinct.append(trial.params)
        return len(distinct) >= self._num_combinations

    def importance(self) -> dict[str, float]:
        """Return how much each parameter decides whether the first objective is among the best.

        Conditional PED-ANOVA (Watanabe et al., IJCAI 2023) over fully trained trials.

        Returns:
            Dotted path -> share, summing to 1, largest first; empty with fewer than `MIN_TRIALS_FOR_IMPORTANCE` trials or if all
            did equally well.
        """
        study = self._study()
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        values = {trial.values[0] for trial in complete if math.isfinite(trial.values[0])}
        if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len(values) < 2:
            return {}
        # The evaluator looks for what makes the target small.
        sign = -1.0 if self._directions[0] == "maximize" else 1.0
        # It wants about five trials among the best to be stable.
        evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, 5 / len(complete))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the sign of the target, and on branches seen once
            shares = get_param_importances(study, evaluator=evaluator, target=lambda trial: sign * trial.values[0])
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))

    def _known(self) -> list[tuple[int, FrozenTrial]]:
        return [(number, trial) for number, trial in sorted(self._trials.items()) if trial is not None]

    def _study(self, *, without: int | None = None) -> optuna.Study:
        """Build the study from what is known, ordered by number whenever it became known."""
        study = optuna.create_study(directions=self._directions, sampler=RandomSampler(seed=0))
        study.add_trials([trial for number, trial in self._known() if number != without])
        return study

    def _sampler(self, number: int, draw: int) -> BaseSampler:
        seed = _seed(self._spec.seed, number, draw)
        if self._spec.sampler.name == "random":
            return RandomSampler(seed=seed)
        is_single = len(self._directions) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                n_startup_trials=self._spec.sampler.startup_trials,
                seed=seed,
                multivariate=is_single,
                # Parameters that exist only together are modelled together; without it they would be drawn one by one.
                group=is_single and any(item.condition for item in self._space.parameters),
                constant_liar=True,
            )

    def _suggest(self, study: optuna.Study) -> dict[str, Scalar]:
        trial = study.ask()
        params: dict[str, Scalar] = {}
        for item in self._space.parameters:
            if not item.is_active(params):
                continue
            match self._distributions[item.path]:
                case FloatDistribution() as span:
                    params[item.path] = trial.suggest_float(
                        item.path, span.low, span.high, log=span.log, step=span.step
                    )
                case IntDistribution() as span:
                    params[item.path] = trial.suggest_int(item.path, span.low, span.high, log=span.log, step=span.step)
                case CategoricalDistribution() as span:
                    params[item.path] = trial.suggest_categorical(item.path, span.choices)
        return params

    def _trial(self, record: TrialRecord) -> FrozenTrial | None:
        if not record.state.is_finished:
            return self._running(record.params)
        if record.state is TrialState.FAILED and record.failure is FailureClass.WORKER_LOST:
            return None
        constraints = {_FAILED: 0.0} | {
            str(item): item.violation(record.profile[item.metric])
            for item in self._spec.constraints
            if not math.isnan(record.profile.get(item.metric, math.nan))
        }
        values = [objective_value(record, objective.metric) for objective in self._spec.objectives]
        usable = [value for value in values if value is not None and not math.isnan(value)]
        if record.state is TrialState.COMPLETE and len(usable) == len(values):
            return self._told(record.params, optuna.trial.TrialState.COMPLETE, constraints, values=usable)
        if record.state is TrialState.PRUNED:
            # A study of several objectives takes no values on the way.
            reached = {record.step: usable[0]} if usable and len(values) == 1 else {}
            return self._told(record.params, optuna.trial.TrialState.PRUNED, constraints, reached=reached)
        if record.state is TrialState.INFEASIBLE and any(amount > 0 for amount in constraints.values()):
            return self._told(record.params, optuna.trial.TrialState.PRUNED, constraints)
        return self._told(record.params, optuna.trial.TrialState.PRUNED, constraints | {_FAILED: 1.0})

    def _running(self, params: Mapping[str, Scalar]) -> FrozenTrial:
        return self._told(params, optuna.trial.TrialState.RUNNING, None)

    def _told(
        self,
        params: Mapping[str, Scalar],
        state: optuna.trial.TrialState,
        constraints: dict[str, float] | None,
        *,
        values: list[float] | None = None,
        reached: dict[int, float] | None = None,
    ) -> FrozenTrial:
        # In the order of the space: a database may have given the parameters back in another one.
        ordered: dict[str, Any] = {path: params[path] for path in self._distributions if path in params}
        return create_trial(
            state=state,
            params=ordered,
            distributions={path: self._distributions[path] for path in ordered},
            constraints=constraints,
            values=values,
            intermediate_values=reached,
        )


def objective_value(record: TrialRecord, metric: str) -> float | None:
    """Return a trial's value of an objective: an efficiency figure of its architecture or a reported metric; None if absent."""
    value = record.profile.get(metric, record.metrics.get(metric))
    return None if value is None else float(value)


def _distribution(item: Distribution) -> BaseDistribution:
    if isinstance(item, Categorical):
        return CategoricalDistribution(item.choices)
    if isinstance(item, Int):
        return IntDistribution(item.low, item.high, log=item.log, step=item.step)
    return FloatDistribution(item.low, item.high, log=item.log, step=item.step)


def _seed(seed: int, number: int, draw: int) -> int:
    """Return a sampler's seed: the same on every machine, and unrelated for neighboring numbers."""
    digest = hashlib.sha256(f"{seed}:{number}:{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _is_among(params: Mapping[str, Scalar], others: Sequence[Mapping[str, Scalar]]) -> bool:
    return any(
        params.keys() == other.keys() and all(same(value, other[path]) for path, value in params.items())
        for other in others
    )
