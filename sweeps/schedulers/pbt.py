"""Population based training: the worst go on as copies of the best, with settings that are a little different.

After Jaderberg et al., "Population Based Training of Neural Networks", arXiv:1711.09846, 2017: truncation selection (section 4.1.1:
who is among the worst 20 % copies somebody among the best 20 %) and exploration by factors 0.8 and 1.2 or a new draw. What comes
out is a schedule of settings. It fits a ledger in which a trial never changes what it is, because a copy is a new trial:

- The trial that is replaced ends as pruned, like one that any other scheduler stops.
- The new one's parameters are those of its donor plus `path@step` for what changes (`lineage.py`), and `parent` is the donor.
  Its configuration holds the whole schedule, so its result is that of training this schedule from nothing, bit for bit on a CPU;
  its key, repetitions with other seeds and reproduction need no special case. Going on from the donor's checkpoint of that step
  (`segda.checkpoint.fork_checkpoint`) only saves the steps that the two have in common; without it they are trained again.
- The sampler is not told of it, since no proposal of its own would have that result.

Decisions come from the rungs alone, as in the other schedulers. A trial is held against those that came to the same step before it,
so nobody waits for a population to come together; deviation from the paper, where members compare their latest values.
"""

import hashlib
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from segda.schedule import is_changeable
from segda.tunable import Scalar
from sweeps.schedulers.decision import CONTINUE, Decision, Rungs, compared_with, not_a_number
from sweeps.schedulers.lineage import forked_at, values_at, with_changes
from sweeps.space import Float, Parameter, SearchSpace

FACTORS = (0.8, 1.2)


@dataclass(frozen=True)
class Replacement(Decision):
    """A trial ends, and a copy of another one takes its place.

    Attributes:
        donor: number of the trial to copy at the step of the report; it has been there.
    """

    donor: int = -1


class Pbt:
    """Replaces the worst trials by changed copies of the best.

    Attributes:
        rung_steps: every `interval` steps, without the last one.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        interval: int,
        max_steps: int,
        quantile: float,
        resample: float,
        seed: int,
    ) -> None:
        """Place the comparisons.

        Args:
            space: what the sweep varies; what of it may change in the middle of a run is explored.
            interval: training steps between comparisons.
            max_steps: steps of a full training.
            quantile: share of the trials that is replaced, and that is copied from; in (0, 0.5].
            resample: probability that a setting is drawn anew rather than multiplied by 0.8 or 1.2; in [0, 1].
            seed: of the draws.

        Raises:
            ValueError: a number is out of range, or nothing that is varied may change in the middle of a run.
        """
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        if not 0 < quantile <= 0.5:
            raise ValueError(f"quantile must be above 0 and at most 0.5, got {quantile}")
        if not 0 <= resample <= 1:
            raise ValueError(f"resample must be from 0 to 1, got {resample}")
        self._explored = explored(space)
        if not self._explored:
            raise ValueError(
                "nothing that is searched may change in the middle of a run; search optimizer.lr, for instance"
            )
        self._quantile = quantile
        self._resample = resample
        self._seed = seed
        self.rung_steps: Sequence[int] = range(interval, max_steps, interval)

    def decide(
        self,
        step: int,
        value: float,
        rungs: Rungs,
        *,
        number: int,
        rivals: Collection[int] | None = None,
    ) -> Decision:
        """Decide on a trial that reported; see `Asha.decide` for the arguments.

        It is replaced if it is among the worst `quantile` of those that came to this step, and as many others are strictly better;
        one of the best of these is copied. With `rivals` it is a network that costs no more.

        Returns:
            A `Replacement`, or the decision to go on. NaN stops a trial without replacing it, except at a rung.
        """
        if step not in self.rung_steps:
            return not_a_number(step) if math.isnan(value) else CONTINUE
        others = compared_with(rungs, step, number, rivals)
        share = int(self._quantile * (len(others) + 1))
        own = _rank(value)
        better = sorted(
            (other for other in others if _rank(others[other]) > own), key=lambda other: (-_rank(others[other]), other)
        )
        worse = sum(_rank(other) < own for other in others.values())
        if share == 0 or worse >= share or len(better) < share:
            return not_a_number(step) if math.isnan(value) else CONTINUE
        donor = self._draws(number, step).choice(better[:share])
        return Replacement(
            stop=True,
            reason=f"{value:.4g} at step {step} is among the worst {share} of {len(others) + 1}; replaced by a copy of trial "
            f"{donor}, which had {others[donor]:.4g}",
            donor=donor,
        )

    def explore(self, params: Mapping[str, Scalar], *, number: int, step: int) -> dict[str, Scalar]:
        """Return the parameters of a changed copy.

        Args:
            params: of the donor, with its own changes so far.
            number: the trial that is replaced.
            step: at which the copy begins to differ.

        Returns:
            The donor's parameters and `path@step` for each setting that the donor has and that may change.
        """
        if forked_at(params) >= step:
            raise ValueError(f"the donor changes at step {forked_at(params)}, so it cannot be copied at step {step}")
        draws = self._draws(number, step, "explore")
        present = values_at(params, step)
        changed: dict[str, Scalar] = {}
        for item in self._explored:
            if item.path not in present:
                continue
            span = item.distribution
            assert isinstance(span, Float)
            if draws.random() < self._resample:
                changed[item.path] = _draw(span, draws)
            else:
                factor = draws.choice(FACTORS)
                changed[item.path] = min(span.high, max(span.low, float(present[item.path] or 0.0) * factor))
        return with_changes(params, changed, step=step)

    def _draws(self, number: int | None, step: int, what: str = "donor") -> random.Random:
        """Return a generator that gives the same on every machine and after every restart."""
        digest = hashlib.sha256(f"{self._seed}:{number}:{step}:{what}".encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))


def explored(space: SearchSpace) -> list[Parameter]:
    """Return the parameters that population based training varies: ranges of real numbers that may change on the way."""
    return [
        item
        for item in space.parameters
        if is_changeable(item.path) and isinstance(item.distribution, Float) and item.distribution.step is None
    ]


def _rank(value: float) -> float:
    return float("-inf") if math.isnan(value) else value


def _draw(span: Float, draws: random.Random) -> float:
    share = draws.random()
    drawn = span.low * math.pow(span.high / span.low, share) if span.log else span.low + share * (span.high - span.low)
    return min(span.high, max(span.low, drawn))
