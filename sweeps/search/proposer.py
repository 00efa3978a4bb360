"""Proposes configurations.

The study is built anew from the ledger's records for every proposal, and the sampler is seeded from the sweep's seed and the
trial's number. So a proposal is a function of the sweep file, the number and what is known of the other trials at that moment,
and no random state has to be saved: a restarted sweep proposes what the interrupted one would have proposed. The order in which
trials ended does not matter. What does matter is which of them had ended: with several trials at a time that depends on timing,
unless the caller says which ones count (`settled`).
"""

import hashlib
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import optuna
from optuna.trial import FrozenTrial

from segda.errors import ConfigError
from segda.tunable import Scalar
from sweeps.file.auto import chosen_sampler
from sweeps.file.default_point import default_point
from sweeps.file.space import SearchSpace, identity
from sweeps.file.spec import SweepSpec
from sweeps.search.costs import Weighing
from sweeps.search.quasi_random import Identity, QuasiRandom
from sweeps.search.samplers import build_sampler, build_study, propose
from sweeps.search.translator import Translator, objective_value
from sweeps.search.warm_start import WarmStart
from sweeps.trial import TrialKind, TrialRecord

__all__ = ["MIN_TRIALS_FOR_IMPORTANCE", "Search", "objective_value"]

MIN_TRIALS_FOR_IMPORTANCE = 10  # fully trained; with fewer, PED-ANOVA ranks noise
# Times that a proposal known already is drawn again before an unused point is taken; a Gaussian process is fitted for each.
_REDRAWS = {"tpe": 20, "nsga2": 20, "random": 20, "gp": 3}
_IN_ORDER = ("grid", "qmc")  # samplers that go through one fixed sequence of points


class _Known(NamedTuple):
    """A proposal and what is known of it."""

    params: Mapping[str, Scalar]
    mark: Identity
    trial: FrozenTrial | None  # None: it was lost, and its outcome will not be known


class Search:
    """The search of one sweep. Used by one thread.

    Attributes:
        sampler: name of the sampler that proposes; never `auto`.
    """

    def __init__(
        self,
        spec: SweepSpec,
        space: SearchSpace,
        trials: Sequence[TrialRecord],
        *,
        warm_start: WarmStart | None = None,
    ) -> None:
        """Take what is known from the ledger.

        Args:
            spec: the sweep.
            space: its search space.
            trials: records of any kind and state; references and replicates are passed over.
            warm_start: what is taken over from earlier sweeps. What it learns from are no proposals of this sweep, so a combination
                among them may be proposed again.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._space = space
        self._translator = Translator(spec, space)
        self._num_combinations = space.num_combinations()
        self.sampler = chosen_sampler(spec, space)
        self._sequence = QuasiRandom(space, seed=_seed(spec.seed, 0, 0)) if self.sampler in _IN_ORDER else None
        self._trials: dict[int, _Known] = {}
        for record in trials:
            self.tell(record)
        taken = warm_start or WarmStart()
        default = default_point(spec) if spec.sampler.default else None
        self._first = [*([] if default is None else [default]), *spec.sampler.first, *taken.first]
        reported = (self._translator.reported(record) for record in taken.learned)
        self._earlier = [trial for trial in reported if trial is not None]

    def ask(
        self, number: int, *, settled: Collection[int] | None = None, weighing: Weighing | None = None
    ) -> dict[str, Scalar]:
        """Propose the parameters of a trial, and count it as running until its end is reported.

        The default configuration comes first, then the points of `sampler.first`, those of the warm start, and the sampler's. A
        finite space is searched without repetition until every combination was proposed once.

        Args:
            number: the trial's number in the sweep.
            settled: numbers of the trials whose outcome may be used; the other ones with smaller numbers count as running, and
                those with larger numbers as unknown. So a proposal depends on the settled trials and the parameters of the others,
                whatever else was reported meanwhile. Unset: all that is known is used.
            weighing: how much the time of a trial counts; unset: not at all.

        Returns:
            Dotted path -> value, of the parameters that exist.
        """
        others = sorted(index for index in self._trials if index < number or (settled is None and index != number))
        position = sum(index < number for index in others)
        used = {self._trials[index].mark for index in others}
        first = next((point for point in self._first[position:] if identity(point) not in used), None)
        if first is not None:
            params = dict(first)
        elif self._sequence is not None:
            params = self._sequence.unused(used) or self._again(number)
        else:
            params = self._drawn(number, used, self._visible(others, settled), weighing)
        self._remember(number, params, self._translator.running(params))
        return params

    def tell(self, record: TrialRecord) -> None:
        """Take note of a trial's present state; `Translator.reported` says what the sampler sees of it.

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
        self._remember(record.number, record.params, self._translator.reported(record))

    @property
    def is_exhausted(self) -> bool:
        """Whether every combination of a finite space was proposed; a further proposal repeats one."""
        if self._num_combinations is None:
            return False
        return len({known.mark for known in self._trials.values()}) >= self._num_combinations

    def importance(self) -> dict[str, float]:
        """Return how much each parameter decides whether the first objective is among the best.

        Conditional PED-ANOVA (Watanabe et al., IJCAI 2023) over this sweep's fully trained trials.

        Returns:
            Dotted path -> share, summing to 1, largest first; empty with fewer than `MIN_TRIALS_FOR_IMPORTANCE` trials or if all
            did equally well.
        """
        # Takes a second to import, and is for reports only.
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        known = [self._trials[number].trial for number in sorted(self._trials)]
        complete = [trial for trial in known if trial is not None and trial.state is optuna.trial.TrialState.COMPLETE]
        values = {trial.values[0] for trial in complete if math.isfinite(trial.values[0])}
        if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len(values) < 2:
            return {}
        study = self._study("tpe", complete)
        # The evaluator looks for what makes the target small.
        sign = -1.0 if self._spec.objectives[0].direction == "maximize" else 1.0
        # It wants about five trials among the best to be stable.
        evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, 5 / len(complete))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the sign of the target, and on branches seen once
            shares = get_param_importances(study, evaluator=evaluator, target=lambda trial: sign * trial.values[0])
        return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))

    def _remember(self, number: int, params: Mapping[str, Scalar], trial: FrozenTrial | None) -> None:
        self._trials[number] = _Known(dict(params), identity(params), trial)

    def _visible(self, others: Sequence[int], settled: Collection[int] | None) -> list[FrozenTrial]:
        """Return the trials of this and earlier sweeps as the sampler may know them, ordered by number."""
        shown = [
            self._trials[index].trial
            if settled is None or index in settled
            else self._translator.running(self._trials[index].params)
            for index in others
        ]
        return self._earlier + [trial for trial in shown if trial is not None]

    def _study(self, sampler: str, trials: Sequence[FrozenTrial]) -> optuna.Study:
        return build_study(sampler, trials, spec=self._spec, space=self._space, translator=self._translator)

    def _drawn(
        self, number: int, used: Collection[Identity], trials: Sequence[FrozenTrial], weighing: Weighing | None
    ) -> dict[str, Scalar]:
        study = self._study(self.sampler, trials)
        for draw in range(_REDRAWS[self.sampler]):
            # The trials of earlier draws stay in the study as running: the sampler keeps away from them.
            seed = _seed(self._spec.seed, number, draw)
            study.sampler = build_sampler(
                self.sampler,
                spec=self._spec,
                space=self._space,
                translator=self._translator,
                seed=seed,
                weighing=weighing,
            )
            params = propose(self.sampler, study, space=self._space, translator=self._translator)
            if identity(params) not in used:
                return params
        spread = QuasiRandom(self._space, seed=_seed(self._spec.seed, number, _REDRAWS[self.sampler]))
        return spread.unused(used) or self._again(number)

    def _again(self, number: int) -> dict[str, Scalar]:
        """Propose a combination of an exhausted space a second time."""
        params = QuasiRandom(self._space, seed=_seed(self._spec.seed, number, 0)).unused(())
        assert params is not None
        return params


def _seed(seed: int, number: int, draw: int) -> int:
    """Return a sampler's seed: the same on every machine, and unrelated for neighboring numbers."""
    digest = hashlib.sha256(f"{seed}:{number}:{draw}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
