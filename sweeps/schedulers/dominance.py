"""Stops trials that can no longer come to lie on the front."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from sweeps.schedulers.base import CONTINUE, Decision, SchedulerConfig
from sweeps.schedulers.fronts import FrontConfig, FrontScheduler, Standing, Vector
from sweeps.schedulers.rung_steps import geometric_rungs


class DominanceConfig(FrontConfig):
    """Stops what a cheaper network that is trained in full has beaten already."""

    name: str = "dominance"
    min_steps: int = Field(
        default=100, ge=1, description="the first rung: training steps before a trial may be stopped"
    )
    rung_factor: int = Field(default=2, ge=2, description="each rung lies at so many times the steps of the one before")
    confidence: float = Field(
        default=0.9,
        ge=0.5,
        lt=1.0,
        description="how sure a stop has to be: the share of the gains seen from a rung on that would not be enough; 0.9 needs "
        "nine trials that trained in full, 0.95 nineteen",
    )
    exempt: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="share of the trials that train in full however they stand, so that gains are not those of survivors alone",
    )


class Dominance(FrontScheduler):
    """Stops what a cheaper network that is trained in full has beaten already.

    What a network costs is known before it trains, so a trial can only move along what training decides. At a rung it is given the
    largest gain that can be believed in: the conformal quantile of what trials that trained in full gained from that rung on, the
    ceil((n + 1) * confidence)-th smallest of n (Vovk et al., "Algorithmic Learning in a Random World", 2005), which exists from
    n >= confidence / (1 - confidence) on; it is never smaller than what a trial of the same cost has gained. If some trained trial
    costs no more and has reached what this one would have even then, this one stops. With several metrics each gets its own
    quantile, at a level that makes all of them hold together (Bonferroni).

    Before training the same is asked with what trials of the same cost reached in the end instead of a gain: where that many were
    trained and a cheaper one is better than the quantile, the trial never begins.

    The quantile holds for trials that are exchangeable, and a sampler that learns proposes better ones later; `exempt` keeps the
    gains from being those of survivors only, not from that.
    """

    Config: ClassVar[type[SchedulerConfig]] = DominanceConfig
    promise = "a trial stops only where one that trained in full costs no more and is better than this one can become"

    def __init__(self, config: DominanceConfig, *, steps: int, report_every: int) -> None:
        """Place the rungs; arguments as in `Scheduler`."""
        super().__init__(config, steps=steps, report_every=report_every)
        self.rung_steps = geometric_rungs(
            config.min_steps, factor=config.rung_factor, steps=steps, report_every=report_every
        )
        # Missing in one of so many metrics is missing.
        self._level = 1 - (1 - config.confidence) / len(config.metrics)
        self._exempt = config.exempt
        self.assumption = "no trial is dominated; how many are depends on what they cost and reach"

    def is_exempt(self, number: int) -> bool:
        """Say so of a random part of the trials, the same after a restart."""
        return random.Random(f"exempt {number}").random() < self._exempt

    def compare_fronts(self, step: int, own: Standing, others: Mapping[int, Standing]) -> Decision:
        """Stop a trial whose best possible end is dominated."""
        trained = {number: other for number, other in others.items() if other.final is not None}
        gains = [self._most(_gains(own, trained.values(), index)) for index in range(len(own.values))]
        bound = tuple(value + max(gain, 0.0) for value, gain in zip(own.values, gains, strict=True))
        number = _better(Standing(own.costs, bound), trained)
        if number is None:
            return CONTINUE
        end, now, most = _listed(trained[number].final), _listed(own.values), _listed(gains)
        return Decision(
            stop=True,
            reason=f"trial {number} costs no more and ended at {end}; this one is at {now} at step {step}, from where "
            f"{len(trained)} trained trials gained at most {most} ({self._level:.0%} confidence)",
        )

    def before_training(self, costs: Vector, others: Mapping[int, Standing]) -> Decision:
        """Stop a trial whose architecture was tried often enough to say that its best is dominated."""
        trained = {number: other for number, other in others.items() if other.final is not None}
        peers = [other.final for other in trained.values() if other.costs == costs and other.final is not None]
        if not peers:
            return CONTINUE
        bound = tuple(self._quantile(final[index] for final in peers) for index in range(len(peers[0])))
        cheaper = {number: other for number, other in trained.items() if other.costs != costs}
        number = _better(Standing(costs, bound), cheaper)
        if number is None:
            return CONTINUE
        end, most = _listed(trained[number].final), _listed(bound)
        return Decision(
            stop=True,
            reason=f"dominated before training: trial {number} costs less and ended at {end}; of this cost {len(peers)} trained "
            f"trials reached at most {most} ({self._level:.0%} confidence)",
        )

    def _most(self, gains: Sequence[tuple[float, bool]]) -> float:
        """Return the largest gain that can be believed in: the quantile of all, and never less than the same cost has gained."""
        return max([self._quantile(gain for gain, _ in gains), *(gain for gain, is_peer in gains if is_peer)])

    def _quantile(self, values: Iterable[float]) -> float:
        ordered = sorted(value for value in values if math.isfinite(value))
        # Rounded, because (9 + 1) * 0.9 is not quite 9.
        rank = math.ceil(round((len(ordered) + 1) * self._level, 9))
        return ordered[rank - 1] if rank <= len(ordered) else math.inf


def _gains(own: Standing, trained: Iterable[Standing], index: int) -> list[tuple[float, bool]]:
    """Return what each trained trial gained from a rung to its end in one metric, and whether it costs what this one does."""
    return [
        (other.final[index] - other.values[index], other.costs == own.costs)
        for other in trained
        if other.final is not None
    ]


def _better(bound: Standing, trained: Mapping[int, Standing]) -> int | None:
    """Return a trained trial that dominates the best that another one can become; None if there is none."""
    best = (*bound.costs, *bound.values)
    for number in sorted(trained):
        reached = (*trained[number].costs, *(trained[number].final or ()))
        if all(theirs >= own for theirs, own in zip(reached, best, strict=True)) and any(
            # What is equal but for rounding is not better.
            theirs > own and not math.isclose(theirs, own, rel_tol=1e-9)
            for theirs, own in zip(reached, best, strict=True)
        ):
            return number
    return None


def _listed(values: Iterable[float] | None) -> str:
    return ", ".join(f"{abs(value):.4g}" for value in values or ())
