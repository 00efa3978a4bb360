"""A rival for `benchmarks/fronts.py`: MO-ASHA with the mistake of a published implementation.

Syne Tune's MOASHA (looked at in its 2024 sources and in 0.16.0) sorts a rung by fronts and by an epsilon-net within each, which
gives the trials' indices in order, best first, and then reads that list as if its i-th entry were the rank of trial i. Whether the
newest trial goes on so depends on where in the rung the worst trial stands. Objectives are not scaled before distances either.
Written anew after that description, for the comparison alone.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from sweeps.schedulers.base import CONTINUE, Decision, SchedulerConfig
from sweeps.schedulers.fronts import Standing, front_of
from sweeps.schedulers.mo_asha import MoAsha, MoAshaConfig


class MisrankedConfig(MoAshaConfig):
    """As of `mo_asha`."""

    name: str = "misranked_mo_asha:MisrankedMoAsha"


class MisrankedMoAsha(MoAsha):
    """Takes sorted indices for ranks."""

    Config: ClassVar[type[SchedulerConfig]] = MisrankedConfig

    def compare_fronts(self, step: int, own: Standing, others: Mapping[int, Standing]) -> Decision:
        """Stop the newest trial if the index of the worst one is not among the lowest `1 / reduction_factor`."""
        del step
        if not others:
            return CONTINUE
        points = [(*other.values, *other.costs) for _, other in sorted(others.items())] + [(*own.values, *own.costs)]
        taken_for_rank = _in_order(points)[-1]
        if taken_for_rank <= max(1.0, len(points) / self.reduction_factor):
            return CONTINUE
        return Decision(stop=True, reason=f"the worst of {len(points)} trials is number {taken_for_rank}")


def _in_order(points: list[tuple[float, ...]]) -> list[int]:
    table, fronts = np.asarray(points), np.asarray(front_of(points))
    order: list[int] = []
    for front in range(fronts.max() + 1):
        members = np.flatnonzero(fronts == front)
        chosen = [int(members[np.argmax(table[members, 0])])]
        while len(chosen) < len(members):
            distance = np.linalg.norm(table[members, None] - table[chosen][None], axis=2).min(axis=1)
            distance[np.isin(members, chosen)] = -1
            chosen.append(int(members[np.argmax(distance)]))
        order += chosen
    return order
