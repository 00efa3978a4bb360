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
        replicates: repetitions of finalists with further seeds, and of references where the file asks for them.
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
    groups = spec.space.num_values(spec.finalists_of_each)
    finalists = search if groups is None else min(spec.finalists * groups, search)
    repeated = finalists + (len(spec.references) if spec.repeat_references else 0)
    further = repeated * (len(spec.listed_seeds) - 1) if spec.seed_budget is None else spec.seed_budget.budget
    return TrialCounts(search, len(spec.references), further)
