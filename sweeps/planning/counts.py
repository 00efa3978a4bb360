"""How many trials a sweep will train."""

from typing import TYPE_CHECKING, NamedTuple

from sweeps.file.outline import Outline

if TYPE_CHECKING:
    from sweeps.file.spec import SweepSpec  # imports PyTorch


class TrialCounts(NamedTuple):
    """How many trials a sweep will train.

    Attributes:
        search: proposals; at most as many as there are combinations, since none is proposed twice.
        references: fixed by the sweep file.
        replicates: repetitions of finalists with further seeds.
    """

    search: int
    references: int
    replicates: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def planned_trials(spec: "SweepSpec | Outline") -> TrialCounts:
    """Return how many trials a sweep will train at most.

    Args:
        spec: the sweep.
    """
    combinations = spec.space.num_combinations()
    search = spec.budget.trials if combinations is None else min(spec.budget.trials, combinations)
    return TrialCounts(search, len(spec.references), min(spec.finalists, search) * (len(spec.seeds) - 1))
