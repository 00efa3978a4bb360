"""What a look at a sweep needs of its file, as the ledger has it: read in a moment, where judging a whole file imports PyTorch."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from segda.config_problems import validated
from sweeps.file.parts import SeedBudget
from sweeps.file.space import Searched, SearchSpace


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Objective(_Part):
    metric: str
    direction: str


class _Budget(_Part):
    trials: int
    hours: float | None
    cost: float | None = None
    price_per_hour: dict[str, float] = {}
    currency: str | None = None


class _Resources(_Part):
    processes: int
    gpus: float | str = 0.0
    custom: dict[str, float] = {}

    @property
    def num_gpus(self) -> float:
        return self.gpus if isinstance(self.gpus, float) else 1.0


def _raw_search(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list | tuple) else value


class Outline(_Part):
    """A part of a sweep file; see `sweeps.file.spec.SweepSpec`, which has attributes of the same names and meanings."""

    name: str
    objectives: tuple[_Objective, ...]
    budget: _Budget
    resources: _Resources
    search: dict[str, Annotated[Searched, BeforeValidator(_raw_search)]]
    references: dict[str, Any]
    repeat_references: bool = False
    finalists: int
    finalists_of_each: tuple[str, ...] = ()
    seeds: tuple[int, ...] | SeedBudget

    @property
    def listed_seeds(self) -> tuple[int, ...]:
        """The training seeds that the file names."""
        return (0,) if isinstance(self.seeds, SeedBudget) else self.seeds

    @property
    def seed_budget(self) -> SeedBudget | None:
        """Further runs of the finalists that are decided one by one."""
        return self.seeds if isinstance(self.seeds, SeedBudget) else None

    @cached_property
    def space(self) -> SearchSpace:
        """What is searched."""
        return SearchSpace.from_search(self.search)


def outline_of(plain: Mapping[str, Any], *, where: str) -> Outline:
    """Return the outline of a sweep.

    Args:
        plain: what `SweepSpec.canonical` gives.
        where: what the data are, put before the message.

    Raises:
        ConfigError: they describe no sweep; one line.
    """
    return validated(Outline, dict(plain), where=where)
