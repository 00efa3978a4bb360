"""Optuna's samplers, made to work on conditional spaces and on a study that is built anew for every proposal.

Each sampler sees the trials in a form of its own:

- tpe takes them as they are: parameters that exist only together are modelled together (one objective), or each on its own
  (several objectives, as in Optuna).
- gp and nsga2 know only parameters that every trial has and would draw all others at random. So each trial is given a value for
  those too that do not exist there, and of a proposal only what exists is kept. For gp it is the middle of the range: to the
  model two trials of one branch then differ only in what they have. For nsga2 it is a fixed draw that depends on the trial's
  parameters: a gene that lies dormant, inherited and crossed like the others.
- gp and nsga2 take no account of trials that were stopped, failed or infeasible. For nsga2 that is right: they become no
  parents. For gp they count as bad as the worst fully trained trial, with the constraints that they broke: close to them it
  advances in small steps.
- nsga2 counts its generations in the trials' records, which the ledger does not have: they follow from the order of the trials.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from segda.tunable import Scalar
from sweeps.file.space import SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.search.costs import Weighing
from sweeps.search.quasi_random import value_at_unit
from sweeps.search.translator import Translator

_GOOD_SHARE = 0.1  # of trials, that tpe takes for good ones
_WITH_ALL_PARAMETERS = ("gp", "nsga2")
_GENERATION = "NSGAIISampler:generation"  # where Optuna keeps it, among a trial's system attributes


class CostAwareTPESampler(TPESampler):
    """Optuna's sampler, which may divide the expected improvement of a candidate by its trial's time to a power (EI-cool).

    Optuna draws candidates for all parameters that exist together at once, or for each alone, and takes the one with the largest
    ratio of densities l / g. Their expected improvement is proportional to 1 / (share + (1 - share) g / l) (Bergstra et al., 2011),
    which orders them alike; but only an improvement can be divided by a time. Since the predicted time is a product of factors of
    single settings, each group of parameters has its own part of it.

    `_compute_acquisition_func` is the one private method of Optuna that is replaced; `tests/sweeps/test_cost_aware.py` tells when
    it changes.

    Attributes:
        weighing: how much time counts; None: not at all, which leaves Optuna's sampler as it is.
        distributions: dotted path -> range, in Optuna's form.
    """

    weighing: Weighing | None = None
    distributions: Mapping[str, BaseDistribution] = MappingProxyType({})

    def _compute_acquisition_func(self, samples: dict[str, Any], mpe_below: Any, mpe_above: Any) -> Any:
        log_ratio = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        if self.weighing is None or not self.weighing.exponent:
            return log_ratio
        log_improvement = -np.logaddexp(math.log(_GOOD_SHARE), math.log(1 - _GOOD_SHARE) - log_ratio)
        return log_improvement - self.weighing.exponent * self._log_seconds(samples)

    def _log_seconds(self, samples: Mapping[str, Any]) -> Any:
        """Return the part of the candidates' predicted times that these parameters decide, as logarithms."""
        assert self.weighing is not None
        costs = self.weighing.costs
        return sum(
            np.array([costs.effect(path, self.distributions[path].to_external_repr(value)) for value in values])
            for path, values in samples.items()
        )


def build_study(
    name: str, trials: Sequence[FrozenTrial], *, spec: SweepSpec, space: SearchSpace, translator: Translator
) -> optuna.Study:
    """Return a study as a sampler should see it.

    Args:
        name: the sampler, as `sweeps.checks.sampler.chosen_sampler` names it.
        trials: what is known, in a fixed order.
        spec: the sweep.
        space: its search space.
        translator: its translator.
    """
    directions = [objective.direction for objective in spec.objectives]
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))
    if name == "gp":
        trials = _with_values(trials, directions)
    if name == "nsga2":
        trials = [trial for trial in trials if trial.state is OptunaState.COMPLETE]
    if name in _WITH_ALL_PARAMETERS:
        size = population_size(spec.budget.trials)
        trials = [
            translator.frozen(
                _completed(trial.params, space, dormant=name == "nsga2"),
                trial.state,
                constraints=trial.constraints or None,
                values=trial.values,
                system_attrs={_GENERATION: index // size} if name == "nsga2" else None,
            )
            for index, trial in enumerate(trials)
        ]
    if name != "random":  # it does not look at them
        study.add_trials(trials)
    return study


def build_sampler(
    name: str,
    *,
    spec: SweepSpec,
    space: SearchSpace,
    translator: Translator,
    seed: int,
    weighing: Weighing | None = None,
) -> BaseSampler:
    """Return a sampler for one proposal.

    Args:
        name: `tpe`, `gp`, `nsga2` or `random`.
        spec: the sweep.
        space: its search space.
        translator: its translator.
        seed: of its draws.
        weighing: how much the time of a trial counts; only tpe heeds it. None: not at all.
    """
    match name:
        case "random":
            return RandomSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(population_size=population_size(spec.budget.trials), seed=seed)
        case "gp":
            # One with every proposal: an instance keeps what it learned of a study with other objectives or parameters.
            return GPSampler(seed=seed, n_startup_trials=spec.sampler.startup_trials, warn_independent_sampling=False)
        case "tpe":
            is_single = len(spec.objectives) == 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler = CostAwareTPESampler(
                    n_startup_trials=spec.sampler.startup_trials,
                    seed=seed,
                    multivariate=is_single,
                    # Parameters that exist only together are modelled together; without it they would be drawn one by one.
                    group=is_single and any(item.condition for item in space.parameters),
                    constant_liar=True,
                )
            sampler.weighing, sampler.distributions = weighing, translator.distributions
            return sampler
    raise ValueError(f"unknown sampler {name!r}; known: tpe, gp, nsga2, random")


def propose(name: str, study: optuna.Study, *, space: SearchSpace, translator: Translator) -> dict[str, Scalar]:
    """Draw one proposal with the study's sampler; the trial stays in the study as running.

    Args:
        name: the sampler.
        study: what `build_study` returned, with its sampler set.
        space: the search space.
        translator: the sweep's translator.

    Returns:
        Dotted path -> value, of the parameters that exist.
    """
    trial = study.ask()
    params: dict[str, Scalar] = {}
    for item in space.parameters:
        is_active = item.is_active(params)
        if is_active or name in _WITH_ALL_PARAMETERS:
            value = _suggest(trial, item.path, translator.distributions[item.path])
            if is_active:
                params[item.path] = value
    return params


def population_size(trials: int) -> int:
    """Return how many trials make a generation of nsga2: a tenth of the budget, so that there are ten; 8 to 50.

    Args:
        trials: `budget.trials`.
    """
    return min(max(trials // 10, 8), 50)


def _suggest(trial: optuna.Trial, path: str, span: Any) -> Scalar:
    match span:
        case FloatDistribution():
            return trial.suggest_float(path, span.low, span.high, log=span.log, step=span.step)
        case IntDistribution():
            return trial.suggest_int(path, span.low, span.high, log=span.log, step=span.step)
        case CategoricalDistribution():
            choice: Scalar = trial.suggest_categorical(path, span.choices)
            return choice
    raise TypeError(f"unknown range {span!r}")


def _completed(params: Mapping[str, Scalar], space: SearchSpace, *, dormant: bool) -> dict[str, Scalar]:
    """Give a value to those parameters too that do not exist there."""
    mark = repr(sorted(params.items())) if dormant else ""
    return {
        item.path: params[item.path]
        if item.path in params
        else value_at_unit(item.distribution, _unit(f"{mark}:{item.path}") if dormant else 0.5)
        for item in space.parameters
    }


def _unit(text: str) -> float:
    """Return a number in [0, 1) that looks random and is always the same for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _with_values(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """Let trials without a result count as bad as the worst with one; give all the same constraints, those ever broken."""
    known = [trial.values for trial in trials if trial.state is OptunaState.COMPLETE]
    if not known:
        return [trial for trial in trials if trial.state is OptunaState.RUNNING]
    worst = [
        min(column) if direction == "maximize" else max(column)
        for column, direction in zip(zip(*known, strict=True), directions, strict=True)
    ]
    broken = sorted({name for trial in trials for name, amount in trial.constraints.items() if amount > 0})
    return [
        trial
        if trial.state is OptunaState.RUNNING
        else optuna.trial.create_trial(
            state=OptunaState.COMPLETE,
            params=trial.params,
            distributions=trial.distributions,
            values=trial.values if trial.state is OptunaState.COMPLETE else worst,
            constraints={name: trial.constraints.get(name, 0.0) for name in broken} or None,
        )
        for trial in trials
    ]
