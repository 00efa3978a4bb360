"""The sweep file: what to vary, what to optimize, what to spend, and how to judge.

Everything that can be known to be wrong is told when the file is read, before anything is trained.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from segda.config import TrainConfig
from segda.config_file import read_document, validate
from segda.config_problems import LocatedError, Problem, error_of, first_problem
from segda.datasets import DATASETS
from segda.errors import ConfigError
from segda.methods import METHODS
from segda.names import nearest
from segda.tunable import Scalar
from sweeps.fields import FIXED_FIELDS, METHOD, PATH_FIELDS, known_paths, value_at, with_values
from sweeps.schedulers.lineage import changes_of, first_values
from sweeps.space import Searched
from sweeps.spec_checks import EFFICIENCY, SELECTIONS, check_spec, resolve_search

# What a sweep does and judges does not depend on these; a sweep may be resumed with others.
OUTSIDE_FINGERPRINT = frozenset(
    {
        *("question", "budget", "finalists", "seeds", "references", "resources", "tracking"),
        *("reuse", "storage", "on_end"),
    }
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Part):
    """One thing to optimize."""

    metric: str = Field(description="reported metric such as source/val/miou, or an efficiency figure such as macs")
    direction: Literal["maximize", "minimize"]


class Constraint(_Part):
    """A bound on an efficiency figure of the architecture, written `fps >= 30`."""

    metric: str
    operator: Literal[">=", "<="]
    bound: float = Field(allow_inf_nan=False)

    def __str__(self) -> str:
        short = f"{self.bound:g}"
        return f"{self.metric} {self.operator} {short if float(short) == self.bound else repr(self.bound)}"

    def holds(self, value: float) -> bool:
        """Return whether a measured value keeps the bound; NaN does not."""
        return value >= self.bound if self.operator == ">=" else value <= self.bound

    def violation(self, value: float) -> float:
        """Return by how much a value breaks the bound, relative to the bound; zero or less if it keeps it."""
        amount = self.bound - value if self.operator == ">=" else value - self.bound
        return amount / abs(self.bound) if self.bound else amount


def _constraint(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\S+?)\s*(>=|<=)\s*([-+.\w]+)\s*", value)
    try:
        bound = float(match[3]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None:
        raise ValueError(f"must be `name >= number` or `name <= number` such as `fps >= 30`, got {value!r}")
    if match[1] not in EFFICIENCY:
        raise ValueError(
            f"constraints are on efficiency figures, {match[1]!r} is none{nearest(match[1], EFFICIENCY)}; "
            f"known: {', '.join(EFFICIENCY)}"
        )
    return {"metric": match[1], "operator": match[2], "bound": bound}


def _selection(name: str) -> str:
    if name not in SELECTIONS:
        raise ValueError(f"unknown criterion {name!r}{nearest(name, SELECTIONS)}; known: {', '.join(SELECTIONS)}")
    return name


class SchedulerConfig(_Part):
    """Early stopping of trials by one metric; `sweeps.schedulers.rivals` says why that is sound with several objectives."""

    name: Literal["asha", "median", "pbt", "none"] = Field(
        default="none",
        description="asha: asynchronous successive halving; median: stops what is worse than the median of the others; "
        "pbt: population based training, the worst go on as changed copies of the best",
    )
    reduction_factor: int = Field(default=3, ge=2, description="asha: one in so many trials goes on at a rung")
    min_steps: int = Field(
        default=100,
        ge=1,
        description="training steps before a trial may be stopped; asha: the first rung; median: rounded up to the next report",
    )
    min_trials: int = Field(
        default=4, ge=1, description="median: other trials that must have come as far before one is stopped"
    )
    interval: int = Field(default=100, ge=1, description="pbt: training steps between comparisons")
    quantile: float = Field(
        default=0.25, gt=0, le=0.5, description="pbt: share of the trials that is replaced, and that is copied from"
    )
    resample: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="pbt: probability that a setting is drawn anew, not multiplied by 0.8 or 1.2",
    )
    metric: str = Field(
        default="source/val/miou",
        description="reported metric that trials are compared by; larger is better. With cost objectives only trials that cost no "
        "more are compared with",
    )


class SamplerConfig(_Part):
    """Who proposes configurations."""

    name: Literal["auto", "tpe", "nsga2", "gp", "random", "grid", "qmc"] = Field(
        default="auto",
        description="tpe: tree-structured Parzen estimator; nsga2: genetic; gp: Gaussian process, slow but thrifty; "
        "qmc: quasi-random; grid: every combination, spread evenly; auto: grid if the budget covers the space, qmc if it is too "
        "small to learn from, else tpe",
    )
    startup_trials: int = Field(default=10, ge=1, description="tpe, gp: trials proposed at random before they learn")
    reproducible: bool = Field(
        default=False,
        description="a trial depends on those `budget.concurrency` numbers before it and earlier, and waits for them: the same "
        "sweep then proposes and stops the same trials however fast they are",
    )
    first: tuple[dict[str, Scalar], ...] = Field(
        (),
        description="known-good points to train first: dotted path -> value of every searched parameter that exists there",
    )
    warm_start: tuple[str, ...] = Field(
        (),
        description="earlier sweeps of the same ledger; the sampler learns from their fully trained trials that fit the space",
    )


class BudgetConfig(_Part):
    """What a sweep may spend."""

    trials: int = Field(ge=1, description="proposals to train; references and further seeds come on top")
    hours: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="wall-clock hours over all runs; unset: no limit"
    )
    gpu_hours: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="hours that trials may occupy GPUs, summed over GPUs; unset: no limit",
    )
    target: float | None = Field(
        None,
        allow_inf_nan=False,
        description="value of the first objective at which the search ends; unset: it goes on",
    )
    concurrency: int = Field(default=1, ge=1, description="trials that run at the same time")


class ResourcesConfig(_Part):
    """What one trial occupies."""

    cpus: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="processor cores; fractions share one")
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = Field(
        default=0.0,
        description="GPUs; fractions below 1 share one; auto: a probe finds how many trials a GPU holds and still gains from",
    )
    processes: int = Field(
        default=1, ge=1, description="processes that train one trial together, each on a share of the batch"
    )
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="other Ray resources that a node must have, e.g. {accelerator_type:A100: 0.01}"
    )
    watchdog_minutes: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="minutes without a report after which a trial is taken for hung",
    )

    @property
    def num_gpus(self) -> float:
        """GPUs of a trial; one as long as `auto` is not resolved."""
        return 1.0 if self.gpus == "auto" else self.gpus

    @model_validator(mode="after")
    def _processes_fit(self) -> Self:
        if self.num_gpus and self.processes > 1 and self.gpus != self.processes:
            raise LocatedError(
                ("processes",), f"each process needs a GPU of its own: set gpus to {self.processes}, it is {self.gpus}"
            )
        return self

    @model_validator(mode="after")
    def _whole_beyond_one(self) -> Self:
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            if value != "auto" and value > 1 and not float(value).is_integer():
                raise LocatedError((name,), f"must be whole beyond 1, got {value:g}")
        return self


class TrackingConfig(_Part):
    """Where experiment pages go."""

    uri: str | None = Field(default=None, description="MLflow server or store; unset: mlflow.db in the store folder")
    experiment: str | None = Field(default=None, description="MLflow experiment; unset: the sweep's name")
    register_as: str | None = Field(
        default=None, description="name in MLflow's model registry under which the picked network is put at the end"
    )
    system_metrics: bool = Field(
        default=False, description="log load and memory of the workers' machines with each report"
    )


def _raw_search(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list | tuple) else value


_SEARCH_SCHEMA = {
    "anyOf": [
        {"const": "default", "description": "the range that is declared beside the field"},
        {"type": "array", "minItems": 1, "description": "choices"},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "choices": {"type": "array", "minItems": 1},
                "low": {"type": "number"},
                "high": {"type": "number"},
                "log": {"type": "boolean"},
                "int": {"type": "boolean"},
                "step": {"type": "number", "exclusiveMinimum": 0},
                "when": {
                    "type": "object",
                    "description": "searched path -> value or values under which this one exists",
                },
            },
        },
    ]
}


class SweepSpec(_Part):
    """One sweep."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="names the sweep in the ledger: a-z, 0-9, _ and -")
    question: str = Field("", description="one sentence: what the sweep is to find out")
    base: dict[str, Any] = Field(description="a training configuration; what is searched may be left out")
    search: dict[str, Annotated[Searched, BeforeValidator(_raw_search), WithJsonSchema(_SEARCH_SCHEMA)]] = Field(
        min_length=1, description="dotted path into the training configuration -> how it varies"
    )
    objectives: tuple[Objective, ...] = Field(
        (Objective(metric="source/val/miou", direction="maximize"),), min_length=1, description="what to optimize"
    )
    constraints: tuple[
        Annotated[
            Constraint,
            BeforeValidator(_constraint),
            PlainSerializer(str),
            WithJsonSchema({"type": "string", "examples": ["fps >= 30"]}),
        ],
        ...,
    ] = Field((), description="bounds on efficiency; an architecture that breaks one is never trained")
    selection: Annotated[str, AfterValidator(_selection), WithJsonSchema({"enum": list(SELECTIONS)})] = Field(
        "source_validation",
        description="how the network to use is chosen. source_validation: mean IoU on the source; entropy, im, bnm, snd: a score "
        "of the predictions on unlabelled target images; oracle: target labels may steer the search, and every table says so",
    )
    scheduler: SchedulerConfig = SchedulerConfig()
    sampler: SamplerConfig = SamplerConfig()
    budget: BudgetConfig
    seed: int = Field(default=0, ge=0, description="seed of the search")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="training seeds; the first one while searching, the others for the finalists"
    )
    finalists: int = Field(default=1, ge=1, description="how many of the best are trained again with the other seeds")
    references: dict[str, dict[str, Scalar]] = Field(
        {}, description="name -> dotted path -> value; trained in full to read the others against, never picked"
    )
    resources: ResourcesConfig = ResourcesConfig()
    tracking: TrackingConfig = TrackingConfig()
    reuse: bool = Field(
        default=True, description="take a result that the ledger has instead of computing the same thing again"
    )
    storage: str | None = Field(
        default=None,
        description="where checkpoints are kept as well, any fsspec address such as s3://bucket/path; for nodes without a "
        "shared folder",
    )
    on_end: str | None = Field(
        default=None,
        description="command that is run when the sweep ends, with SWEEP_NAME, SWEEP_STATE and SWEEP_REPORT set",
    )

    @field_validator("base")
    @classmethod
    def _base_is_ours(cls, base: dict[str, Any]) -> dict[str, Any]:
        if "seed" in base:
            raise LocatedError(("seed",), f"{FIXED_FIELDS['seed']}, outside of base")
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

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_spec(self)
        return self

    def plain_config(self, params: Mapping[str, Scalar], *, seed: int) -> dict[str, Any]:
        """Return the training configuration of a trial as unchecked plain data; see `train_config`."""
        config = with_values(self.base, {**first_values(params), "seed": seed})
        if changes := changes_of(params):
            config["schedule"] = dict(config.get("schedule") or {}) | {"changes": changes}
        method = config.get("method")
        if isinstance(method, dict) and method.get("name") in METHODS:
            own = METHODS[method["name"]].Config.model_fields
            config["method"] = {key: value for key, value in method.items() if key in own or f"method.{key}" in params}
        return config

    def problem_with(self, params: Mapping[str, Scalar]) -> Problem | None:
        """Return the foremost reason why parameters make no training configuration, or None; see `train_config`."""
        plain = self.plain_config(params, seed=self.seeds[0])
        try:
            TrainConfig.model_validate(plain)
        except ValidationError as error:
            return first_problem(error, TrainConfig, plain)
        return None

    def train_config(self, params: Mapping[str, Scalar], *, seed: int) -> TrainConfig:
        """Return the training configuration of a trial.

        Settings of methods under `base` apply to those methods that have them; the others do not see them.

        Args:
            params: dotted path -> value, put over `base`.
            seed: the training seed.

        Raises:
            ConfigError: the parameters do not make a configuration.
        """
        plain = self.plain_config(params, seed=seed)
        try:
            return TrainConfig.model_validate(plain)
        except ValidationError as error:
            raise error_of(error, TrainConfig, plain, where=f"sweep {self.name}") from error

    def canonical(self) -> dict[str, Any]:
        """Return the sweep as plain data; `SweepSpec.model_validate` makes an equal sweep of it."""
        return self.model_dump(mode="json", by_alias=True)

    def fingerprint(self) -> str:
        """Return a hash of what decides which trials are proposed and how they are judged, 16 hexadecimal digits.

        Budget, resources, references, further seeds, tracking and the places of data are left out: a sweep may be resumed with
        others.
        """
        plain = {key: value for key, value in self.canonical().items() if key not in OUTSIDE_FINGERPRINT}
        plain["base"] = without_places(plain["base"])
        plain["first_seed"] = self.seeds[0]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def load_spec(path: Path, *, roots: Mapping[str, Path] | None = None) -> SweepSpec:
    """Read a sweep file.

    Args:
        path: YAML file.
        roots: name of a data set -> its folder, put over what the file says.

    Returns:
        The sweep, checked; its paths are absolute, since trials run in other working directories.

    Raises:
        ConfigError: one line: `FILE:LINE: key.path: what was expected, what came`.
    """
    roots = roots or {}
    for name in roots:
        if name not in DATASETS:
            raise ConfigError(
                f"unknown data set {name!r}{nearest(name, DATASETS)}; known: {', '.join(sorted(DATASETS))}"
            )
    document = read_document(path)
    base = document.data.get("base")
    if isinstance(base, dict):
        places: dict[str, Scalar] = {}
        for domain in ("source", "target"):
            dataset = value_at(base, f"data.{domain}.dataset")
            if isinstance(dataset, str) and dataset in roots:
                places[f"data.{domain}.root"] = str(roots[dataset])
        for field in PATH_FIELDS:
            place = places.get(field, value_at(base, field))
            if isinstance(place, str):
                places[field] = str(Path(place).expanduser().absolute())
        document.data["base"] = with_values(base, places)
    return validate(document, SweepSpec)


def sweep_schema() -> dict[str, Any]:
    """Return the JSON schema of sweep files, for editors that complete and check them."""
    schema = SweepSpec.model_json_schema(by_alias=True)
    paths = sorted(path for path in known_paths(METHODS) if path not in FIXED_FIELDS)
    schema["properties"]["search"]["propertyNames"] = {"enum": paths}
    schema["properties"]["references"]["additionalProperties"]["propertyNames"] = {"enum": sorted({METHOD, *paths})}
    return schema
