"""Trials in Optuna's form. With proposer.py, samplers.py and export.py the only files that import Optuna."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from segda.tunable import Scalar
from sweeps.file.space import Categorical, Distribution, Int, SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.metrics import is_validator, sound
from sweeps.selection.guards import collapse
from sweeps.trial import TrialRecord, TrialState

FAILED = "failed"  # constraint that a trial breaks by having failed
COLLAPSED = "collapsed"  # constraint that a trial breaks by what its network does to the target


def objective_value(record: TrialRecord, metric: str) -> float | None:
    """Return a trial's value of an objective: an efficiency figure of its architecture or a reported metric; None if absent.

    A latency that was measured in company counts here: who proposes is helped by an estimate, and bans nothing by it.
    """
    value = record.profile.get(metric, record.metrics.get(metric))
    return None if value is None else float(value)


class Translator:
    """Puts the trials of one sweep into Optuna's form.

    Attributes:
        distributions: dotted path -> Optuna's form of the parameter's range, in the order of the space.
    """

    def __init__(self, spec: SweepSpec, space: SearchSpace) -> None:
        """Translate the space.

        Args:
            spec: the sweep, for its objectives and constraints.
            space: its search space.
        """
        self._spec = spec
        self._is_blind = any(is_validator(objective.metric) for objective in spec.objectives)
        self.distributions = {item.path: _distribution(item.distribution) for item in space.parameters}

    def reported(self, record: TrialRecord) -> FrozenTrial | None:
        """Return a trial as a sampler should see it.

        Trained in full: its objectives. Pruned: its objective so far, if there is but one. Infeasible, or failed for a reason that
        lies in its configuration: pruned, with a broken constraint, so that the sampler stays away; told as failed it would be
        forgotten and proposed again. Not finished: running.

        Args:
            record: the trial, whose parameters are in the space.

        Returns:
            None for a trial that was given up through no fault of its configuration (`failures.py`): nothing is known of it.
        """
        if not record.state.is_finished:
            return self.running(record.params)
        constraints = self.constraints(record)
        values = self.values(record)
        if record.state is TrialState.COMPLETE and values is not None:
            return self.frozen(record.params, OptunaState.COMPLETE, constraints=constraints, values=values)
        if record.state is TrialState.PRUNED:
            # A study of several objectives takes no values on the way.
            reached = {record.step: values[0]} if values is not None and len(values) == 1 else {}
            return self.frozen(record.params, OptunaState.PRUNED, constraints=constraints, reached=reached)
        if record.is_set_aside:
            return None
        return self.frozen(record.params, OptunaState.PRUNED, constraints=constraints)

    def running(self, params: Mapping[str, Scalar]) -> FrozenTrial:
        """Return a trial of which no more is known than that it was proposed."""
        return self.frozen(params, OptunaState.RUNNING)

    def values(self, record: TrialRecord) -> list[float] | None:
        """Return a trial's objectives, in their order in the sweep file; None if one is absent or not a number."""
        values = [objective_value(record, objective.metric) for objective in self._spec.objectives]
        known = [value for value in values if value is not None and not math.isnan(value)]
        return known if len(known) == len(values) else None

    def constraints(self, record: TrialRecord) -> dict[str, float]:
        """Return by how much a finished trial breaks each constraint, relative to its bound; zero or less: not at all.

        `failed` is one of them: 1 for a trial without a result for which none of the others is the reason. Where a validator is an
        objective, `collapsed` is another one: 1 for a trial of which the guards say so from its own figures alone
        (`sweeps.selection.guards`). Validators reward a collapsed network, so a search would run after it.
        """
        measured = {
            str(item): item.violation(record.profile[item.metric])
            for item in self._spec.constraints
            if not math.isnan(sound(record.profile).get(item.metric, math.nan))
        }
        ended_well = record.state is TrialState.PRUNED or (
            record.state is TrialState.COMPLETE and self.values(record) is not None
        )
        explained = record.state is TrialState.INFEASIBLE and any(amount > 0 for amount in measured.values())
        broken = {FAILED: 0.0 if ended_well or explained or record.is_set_aside else 1.0}
        if self._is_blind:
            is_trained = record.state in (TrialState.COMPLETE, TrialState.PRUNED)
            is_collapsed = is_trained and collapse(record, ()) is not None
            broken[COLLAPSED] = float(is_collapsed)
        return broken | measured

    def frozen(
        self,
        params: Mapping[str, Scalar],
        state: OptunaState,
        *,
        constraints: Mapping[str, float] | None = None,
        values: list[float] | None = None,
        reached: Mapping[int, float] | None = None,
        user_attrs: Mapping[str, Any] | None = None,
        system_attrs: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """Return a trial in Optuna's form.

        Args:
            params: dotted path -> value.
            state: how it stands.
            constraints: name -> violation.
            values: its objectives, of a complete trial.
            reached: step -> objective on the way.
            user_attrs: what people are to read.
            system_attrs: what samplers and viewers are to read.
        """
        # In the order of the space: a database may have given the parameters back in another one.
        ordered: dict[str, Any] = {path: params[path] for path in self.distributions if path in params}
        trial = create_trial(
            state=state,
            params=ordered,
            distributions={path: self.distributions[path] for path in ordered},
            constraints=None if constraints is None else dict(constraints),
            values=values,
            intermediate_values=None if reached is None else dict(reached),
            user_attrs=None if user_attrs is None else dict(user_attrs),
            system_attrs=None if system_attrs is None else dict(system_attrs),
        )
        trial.__class__ = _Told
        return trial


class _Told(FrozenTrial):
    """What a study is told and does not change: every proposal's study shares it, and would else copy thousands of trials."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Told":
        return copy.copy(self)


def _distribution(item: Distribution) -> BaseDistribution:
    if isinstance(item, Categorical):
        return CategoricalDistribution(item.choices)
    if isinstance(item, Int):
        return IntDistribution(item.low, item.high, log=item.log, step=item.step)
    return FloatDistribution(item.low, item.high, log=item.log, step=item.step)
