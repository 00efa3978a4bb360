"""The sweep file: what to vary, what to optimize, what to spend, and how to judge.

A sweep is data. Each part is checked in itself here; what must hold between them is checked by whoever makes one out of a file
or of the ledger (`sweeps.checks.makers`), so that everything that can be known to be wrong is told before anything is trained.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    Tag,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from segda.config import MOST_SEEDS, TrainConfig
from segda.config_problems import LocatedError, Problem, first_problem, validated
from segda.methods import METHODS
from segda.named import ConfigOf
from segda.tunable import Scalar
from sweeps.file.fields import FIXED_FIELDS, GROUPS, PATH_FIELDS, STYLE, VARIANTS, name_of
from sweeps.file.parts import (
    BudgetConfig,
    Constraint,
    DeployConfig,
    Objective,
    Part,
    ResourcesConfig,
    SamplerConfig,
    SeedBudget,
    TrackingConfig,
    constraint_of,
    selection_of,
)
from sweeps.file.search_part import check_name, resolve_search
from sweeps.file.space import Searched, SearchSpace
from sweeps.metrics import CRITERIA, EFFICIENCY, Direction, is_doubtful
from sweeps.paths import value_at, with_values
from sweeps.schedulers import SCHEDULERS, FrontConfig, Scheduler, SchedulerConfig, StoppingConfig
from sweeps.schedulers.no_scheduler import NoSchedulerConfig
from sweeps.store import FILES

__all__ = [
    "Constraint",
    "Objective",
    "ResourcesConfig",
    "SweepSpec",
    "without_places",
]

# What a sweep does and judges does not depend on these; a sweep may be resumed with others.
_OUTSIDE_FINGERPRINT = frozenset(
    {
        *(
            "question",
            "budget",
            "finalists",
            "finalists_of_each",
            "seeds",
            "references",
            "repeat_references",
            "baseline",
        ),
        *("resources", "tracking", "reuse", "storage", "on_end"),
    }
)


# Settings that there were not always, with their usual values, which are no part of a fingerprint.
_LATER_OF_SAMPLER = {"cost_aware": False, "default": True}

_SELECTION_SCHEMA = {
    "anyOf": [
        {"enum": list(CRITERIA)},
        {"type": "string", "pattern": ":", "description": "module:function of one's own"},
    ]
}


def _free_name(name: str) -> str:
    if name in FILES:
        raise ValueError(f"the store has {name} for itself; give the sweep another name")
    return name


_Name = Annotated[str, AfterValidator(_free_name)]


def _name_field() -> Any:
    return Field(
        pattern=r"^[a-z0-9_][a-z0-9_-]*$",
        max_length=100,
        description="names the sweep in the ledger and its folder in the store: a-z, 0-9, _ and -, the last not at the beginning",
    )


def _raw_search(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list | tuple) else value


_Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MOST_SEEDS)], ...],
    Field(min_length=1, max_length=1000),
]


def _form_of_seeds(value: Any) -> str:
    return "dict[budget]" if isinstance(value, Mapping | SeedBudget) else "list[seeds]"


class SweepSpec(Part):
    """One sweep."""

    name: _Name = _name_field()
    question: str = Field("", max_length=2000, description="one sentence: what the sweep is to find out")
    base: dict[str, Any] = Field(description="a training configuration; what is searched may be left out")
    search: dict[str, Annotated[Searched, BeforeValidator(_raw_search)]] = Field(
        min_length=1, description="dotted path into the training configuration -> how it varies"
    )
    objectives: tuple[Objective, ...] = Field(
        (Objective(metric="source/val/miou", direction="maximize"),), min_length=1, description="what to optimize"
    )
    constraints: tuple[
        Annotated[
            Constraint,
            BeforeValidator(constraint_of),
            PlainSerializer(str),
            WithJsonSchema({"type": "string", "examples": ["fps >= 30"]}),
        ],
        ...,
    ] = Field((), description="bounds on efficiency; an architecture that breaks one is never trained")
    deploy: DeployConfig | None = Field(
        None,
        description="how the network is going to be run: latency is measured with that runtime and precision, which need not be "
        "those of the training; unset: PyTorch in the precision of the training, from a normalized image to its scores",
    )
    selection: Annotated[str, AfterValidator(selection_of), WithJsonSchema(_SELECTION_SCHEMA)] = Field(
        "ensv",
        description="how the network to use is chosen. ensv: agreement with the majority of the candidates on unlabelled target "
        "images, and source_validation where that is refused, e.g. with fewer than three; source_validation: mean IoU on the "
        "source; a validator, such as soft_iou: a score of its predictions there; oracle: target labels may steer the search, and "
        "every table says so",
    )
    scheduler: Annotated[SerializeAsAny[SchedulerConfig], ConfigOf(SCHEDULERS, usual="none")] = Field(
        NoSchedulerConfig(), description="which trials stop early"
    )
    sampler: SamplerConfig = SamplerConfig()
    budget: BudgetConfig
    seed: int = Field(default=0, ge=0, le=MOST_SEEDS, description="seed of the search")
    seeds: Annotated[
        Annotated[_Seeds, Tag("list[seeds]")] | Annotated[SeedBudget, Tag("dict[budget]")],
        Discriminator(_form_of_seeds),
    ] = Field(
        (0,),
        description="training seeds; the first one while searching, the further ones for the finalists: one of them gives a second "
        "value, two or more a mean with an interval and a comparison of finalists. Or `{budget: 24}`: so many further runs of the "
        "finalists, each with a seed of its own and of the finalist of which it tells most",
    )
    finalists: int = Field(
        default=1,
        ge=1,
        description="how many of the best are trained again with the further seeds; one replaces a better ranked one only if it is "
        "better over at least two further seeds, so by three seeds or more in all",
    )
    finalists_of_each: tuple[str, ...] = Field(
        default=(),
        description="searched paths such as method.name: finalists are so many of each combination of their values, so that "
        "methods are compared over seeds and not only the best one is repeated",
    )
    references: dict[str, dict[str, Scalar]] = Field(
        {}, description="name -> dotted path -> value; trained in full to read the others against, never picked"
    )
    baseline: str | None = Field(
        default=None,
        description="name of the reference that gains are told against; unset: the source-only training with the best source "
        "validation",
    )
    repeat_references: bool = Field(
        default=False, description="train the references with the further seeds too, so that they have intervals"
    )
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()
    reuse: bool = Field(
        default=True, description="take a result that the ledger has instead of computing the same thing again"
    )
    storage: str | None = Field(
        default=None,
        min_length=1,
        description="where checkpoints are kept as well, any fsspec address such as s3://bucket/path; for nodes without a "
        "shared folder",
    )
    on_end: str | None = Field(
        default=None,
        min_length=1,
        description="command that is run when a driver of the sweep ends, with SWEEP_NAME, SWEEP_REPORT and SWEEP_STATE set: "
        "finished, out_of_budget, interrupted, stalled (an outage), failed (an error), running (another driver has it) or unknown "
        "(the ledger is gone)",
    )

    @field_validator("base")
    @classmethod
    def _base_is_ours(cls, base: dict[str, Any]) -> dict[str, Any]:
        if "seed" in base:
            raise LocatedError(("seed",), f"{FIXED_FIELDS['seed']}, outside of base")
        for part in GROUPS:
            if not isinstance(value_at(base, part, {}), Mapping):
                raise LocatedError(tuple(part.split(".")), "must be a mapping `key: value`")
        for part in VARIANTS:
            name = name_of(base, part)
            if name is not None:
                check_name(part, name, at=(*part.split("."), "name"))
        return base

    @field_validator("search", mode="before")
    @classmethod
    def _resolve(cls, search: Any, info: ValidationInfo) -> Any:
        if not isinstance(search, Mapping):
            return search
        if "base" not in info.data:
            # Without a base no declared range can be looked up; the error in base is the one to tell.
            return {path: ["default"] if item == "default" else item for path, item in search.items()}
        return resolve_search(search, info.data["base"])

    @field_validator("scheduler", mode="before")
    @classmethod
    def _compare_by_the_objective(cls, scheduler: Any, info: ValidationInfo) -> Any:
        """Let trials be compared by the objectives that training decides, where the file does not say by what."""
        trained = {
            item.metric: item.direction for item in info.data.get("objectives", ()) if item.metric not in EFFICIENCY
        }
        name = str(scheduler.get("name")) if isinstance(scheduler, Mapping) else ""
        if name not in SCHEDULERS or not trained:
            return scheduler
        kind = SCHEDULERS[name].Config
        if issubclass(kind, StoppingConfig):
            return {"metric": next(iter(trained)), **scheduler}
        return {"metrics": trained, **scheduler} if issubclass(kind, FrontConfig) else scheduler

    @property
    def space(self) -> SearchSpace:
        """What the sweep varies.

        Raises:
            LocatedError: conditions do not fit; relative to `search`.
        """
        return SearchSpace.from_search(self.search)

    @property
    def first_seed(self) -> int:
        """The training seed of the search, and of references."""
        return 0 if isinstance(self.seeds, SeedBudget) else self.seeds[0]

    @property
    def listed_seeds(self) -> tuple[int, ...]:
        """The training seeds that the file names: with a budget, that of the search alone."""
        return (self.first_seed,) if isinstance(self.seeds, SeedBudget) else self.seeds

    @property
    def seed_budget(self) -> SeedBudget | None:
        """Further runs of the finalists that are decided one by one; None with a list of seeds."""
        return self.seeds if isinstance(self.seeds, SeedBudget) else None

    @property
    def has_further_seeds(self) -> bool:
        """Whether finalists are trained again."""
        return self.seed_budget is not None or len(self.listed_seeds) > 1

    @property
    def costs(self) -> dict[str, Direction]:
        """Objectives that are efficiency metrics of the architecture -> which values are better."""
        return {item.metric: item.direction for item in self.objectives if item.metric in EFFICIENCY}

    @property
    def trained_objectives(self) -> dict[str, Direction]:
        """Objectives that training decides -> which values are better."""
        return {item.metric: item.direction for item in self.objectives if item.metric not in EFFICIENCY}

    def build_scheduler(self) -> Scheduler:
        """Return the rule that stops trials early.

        Raises:
            LocatedError: it does not fit the training; relative to `scheduler`.
        """
        report_every = self.base.get("report_every", TrainConfig.model_fields["report_every"].default)
        kind = SCHEDULERS[self.scheduler.name]
        return kind(self.scheduler, steps=int(self.base["steps"]), report_every=int(report_every))

    def plain_config(self, params: Mapping[str, Scalar], *, seed: int) -> dict[str, Any]:
        """Return the training configuration of a trial as unchecked plain data; see `train_config`."""
        config = with_values(self.base, {**params, "seed": seed})
        for part, known in VARIANTS.items():
            settings, name = value_at(config, part), name_of(config, part)
            if isinstance(settings, dict) and name in known:
                own = known[name].Config.model_fields
                for key in settings.keys() - own.keys():
                    if f"{part}.{key}" not in params:
                        del settings[key]
        method = name_of(config, "method")
        if method in METHODS and isinstance(config.get("data"), dict):
            if not METHODS[method].uses_few_shot(config["method"]):
                config["data"].pop("few_shot", None)
            if not METHODS[method].uses_external_labels(config["method"]):
                config["data"].pop("external_labels", None)
            if METHODS[method].supervision == "target" and f"{STYLE}.name" not in params:
                config["data"].pop("style", None)
        if method in METHODS and isinstance(config.get("pruning"), dict):
            is_searched = any(path.startswith("pruning.discriminator.") for path in params)
            if not METHODS[method].uses_discriminator(config["method"]) and not is_searched:
                config["pruning"].pop("discriminator", None)
        return config

    def problem_with(self, params: Mapping[str, Scalar]) -> Problem | None:
        """Return the foremost reason why parameters make no training configuration, or None; see `train_config`."""
        plain = self.plain_config(params, seed=self.first_seed)
        try:
            TrainConfig.model_validate(plain)
        except ValidationError as error:
            return first_problem(error, TrainConfig, plain)
        return None

    def train_config(self, params: Mapping[str, Scalar], *, seed: int) -> TrainConfig:
        """Return the training configuration of a trial.

        Settings of methods and networks under `base` apply to those that have them; the others do not see them, nor do methods
        without target labels see `data.few_shot`, those without external labels `data.external_labels`, those without a
        discriminator `pruning.discriminator`, or those that are supervised on the target `data.style`.

        Args:
            params: dotted path -> value, put over `base`.
            seed: the training seed.

        Raises:
            ConfigError: the parameters do not make a configuration.
        """
        return validated(TrainConfig, self.plain_config(params, seed=seed), where=f"sweep {self.name}")

    def worker_config(self, config: TrainConfig, *, gpus: float) -> TrainConfig:
        """Return a trial's training configuration for the process that trains it.

        A trial without a GPU computes on the processor, also on a node that has one.

        Args:
            config: see `train_config`.
            gpus: of a trial.
        """
        if config.device == "auto" and not gpus:
            return config.model_copy(update={"device": "cpu"})
        return config

    def broken_constraint(self, figures: Mapping[str, float]) -> str | None:
        """Return why an architecture does not keep to the constraints, or None if it does.

        A metric that was not measured is no permission: nobody can say that such an architecture keeps to the bound, so it is
        not trained, and the reason says that the measurement is what is missing. One that was measured in company says nothing
        yet: it is measured again, and judged then.

        Args:
            figures: efficiency metrics of the architecture by name.

        Returns:
            The first constraint that does not hold, with the value, in one line.
        """
        for constraint in self.constraints:
            if is_doubtful(figures, constraint.metric):
                continue
            value = figures.get(constraint.metric, math.nan)
            if not math.isfinite(value):
                return f"{constraint} cannot be checked: {constraint.metric} was not measured"
            if not constraint.holds(value):
                return f"{constraint} is broken: {value:.4g}"
        return None

    def canonical(self) -> dict[str, Any]:
        """Return the sweep as plain data, of which `sweeps.checks.makers.spec_from` makes an equal sweep."""
        return self.model_dump(mode="json", by_alias=True)

    def fingerprint(self) -> str:
        """Return a hash of what decides which trials are proposed and how they are judged, 16 hexadecimal digits.

        Budget, resources, references, further seeds, tracking and the places of data are left out: a sweep may be resumed with
        others.
        """
        plain = {key: value for key, value in self.canonical().items() if key not in _OUTSIDE_FINGERPRINT}
        plain["base"] = without_places(plain["base"])
        if self.deploy is None:
            del plain["deploy"]  # sweeps that were begun before there was this field have no such key; so below
        for key, usual in _LATER_OF_SAMPLER.items():
            if plain["sampler"][key] == usual:
                del plain["sampler"][key]
        plain["first_seed"] = self.first_seed
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_sweep_name(name: str) -> None:
    """Refuse what cannot name a sweep.

    Raises:
        ConfigError: it has other characters, is too long, or is that of a file of the store.
    """
    validated(_Named, {"name": name}, where="the new sweep")


class _Named(Part):
    name: _Name = _name_field()


def without_places(base: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a sweep's `base` without the fields that only say where data lie and how they are read.

    Args:
        base: the part, plain data.
        prefix: dotted path that it stands at.
    """
    places = set(PATH_FIELDS) | {"device", "data.workers"}
    return {
        key: without_places(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in base.items()
        if f"{prefix}{key}" not in places
    }
