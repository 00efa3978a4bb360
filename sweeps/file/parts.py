"""The parts of a sweep file but `base` and `search`: each is checked in itself here, against the others in `sweeps.checks`."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from segda.config_problems import LocatedError, Location, shortened
from segda.names import nearest
from segda.settings import Settings
from segda.tunable import Scalar
from sweeps.metrics import CRITERIA, EFFICIENCY, Direction

ONE_LINE = r"^[^\p{C}]*[^\p{C}\s][^\p{C}]*$"  # no control characters, and something to see
_MOST_GPUS = 1024
_LEAST = 0.0001  # of a resource: Ray counts in such parts, and less is nothing to it
_LONGEST_REGISTERED = 250  # characters


class Part(Settings):
    """Does not change and has no other keys than its fields."""


class Objective(Part):
    """One thing to optimize."""

    metric: str = Field(description="reported metric such as source/val/miou, or an efficiency metric such as macs")
    direction: Direction


class Constraint(Part):
    """A bound on an efficiency figure of the architecture, written `fps >= 30`."""

    metric: str
    operator: Literal[">=", "<="]
    bound: float = Field(gt=0)

    def __str__(self) -> str:
        short = f"{self.bound:g}"
        return f"{self.metric} {self.operator} {short if float(short) == self.bound else repr(self.bound)}"

    def holds(self, value: float) -> bool:
        """Return whether a measured value keeps the bound; NaN does not."""
        return value >= self.bound if self.operator == ">=" else value <= self.bound

    def violation(self, value: float) -> float:
        """Return by how much a value breaks the bound, relative to the bound; zero or less if it keeps it."""
        amount = self.bound - value if self.operator == ">=" else value - self.bound
        return amount / self.bound


def constraint_of(value: Any) -> Any:
    """Return a constraint as plain data, taken apart if it is written out.

    Raises:
        ValueError: it is not written as a constraint, or not on an efficiency figure.
    """
    if not isinstance(value, str):
        return value
    metric, operator, bound = bound_of(value)
    if metric not in EFFICIENCY:
        raise ValueError(
            f"constraints are on efficiency metrics, {metric!r} is none{nearest(metric, EFFICIENCY)}; "
            f"known: {', '.join(EFFICIENCY)}"
        )
    return {"metric": metric, "operator": operator, "bound": bound}


def bound_of(text: str) -> tuple[str, str, float]:
    """Take a bound on a figure apart.

    Args:
        text: such as `fps >= 30`.

    Returns:
        Name, operator and number.

    Raises:
        ValueError: it is not written so.
    """
    match = re.fullmatch(r"\s*(\S+?)\s*(>=|<=)\s*([-+.\w]+)\s*", text)
    try:
        bound = float(match[3]) if match else None
    except ValueError:
        bound = None
    if match is None or bound is None:
        raise ValueError(f"must be `name >= number` or `name <= number` such as `fps >= 30`, got {text!r}")
    return match[1], match[2], bound


def selection_of(name: str) -> str:
    """Return the name of a criterion of selection.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in CRITERIA:
        raise ValueError(f"unknown criterion {name!r}{nearest(name, CRITERIA)}; known: {', '.join(CRITERIA)}")
    return name


class SamplerConfig(Part):
    """Who proposes configurations."""

    name: Literal["auto", "tpe", "nsga2", "gp", "random", "grid", "qmc"] = Field(
        default="auto",
        description="tpe: tree-structured Parzen estimator; nsga2: genetic; gp: Gaussian process, slow but thrifty; "
        "qmc: quasi-random; grid: every combination, spread evenly; auto: grid if the budget covers the space, qmc if it is too "
        "small to learn from, else tpe; a sweep that has begun keeps what auto took",
    )
    startup_trials: int = Field(
        default=10, ge=1, le=10**6, description="tpe, gp: trials proposed at random before they learn"
    )
    reproducible: bool = Field(
        default=False,
        description="a trial depends on those `budget.concurrency` numbers before it and earlier, and waits for them: the same "
        "sweep then proposes and stops the same trials however fast they are",
    )
    default: bool = Field(
        default=True,
        description="train first what would be trained without a search: every parameter has the value of `base` or its default, "
        "or the nearest one that is searched; with a budget of seeds the report tells what the search gained over it",
    )
    cost_aware: bool = Field(
        default=False,
        description="tpe with one objective: what a proposal promises is divided by the time that its trial is predicted to take, "
        "to a power that falls from 1 to 0 as the budget is used",
    )
    first: tuple[dict[str, Scalar], ...] = Field(
        (),
        description="known-good points to train next: dotted path -> value of every searched parameter that exists there",
    )
    warm_start: tuple[str, ...] = Field(
        (),
        description="earlier sweeps of the same ledger; the sampler learns from those of their trials that this sweep would train "
        "in the same way; of those trained otherwise (other steps, image size, data, ...) the best are tried first",
    )


class BudgetConfig(Part):
    """What a sweep may spend."""

    trials: int = Field(ge=1, le=10**6, description="proposals to train; references and further seeds come on top")
    hours: float | None = Field(None, gt=0, le=10**6, description="wall-clock hours over all runs; unset: no limit")
    gpu_hours: float | None = Field(
        None,
        gt=0,
        le=10**9,
        description="hours that trials may occupy GPUs, summed over GPUs; unset: no limit",
    )
    cost: float | None = Field(
        None,
        gt=0,
        le=10**12,
        description="money that trials may cost, by `price_per_hour`; unset: no limit",
    )
    price_per_hour: dict[
        Annotated[str, Field(pattern=ONE_LINE, max_length=200)], Annotated[float, Field(ge=0, le=10**9)]
    ] = Field(
        {},
        description="what an hour costs: of one GPU by (a part of) its maker's name, e.g. A100, or by a resource under "
        "`resources.custom` that says which node; of the processors of a trial: cpu. The longest name that fits counts",
    )
    currency: str | None = Field(
        None, pattern=ONE_LINE, max_length=20, description="of the prices, for people, e.g. EUR; unset: numbers alone"
    )
    target: float | None = Field(
        None,
        description="value of the first objective at which the search ends; unset: it goes on",
    )
    concurrency: int = Field(default=1, ge=1, le=10_000, description="trials that run at the same time")


class SeedBudget(Part):
    """Further runs of the finalists, each of which goes where it helps most to tell the best one."""

    budget: int = Field(ge=2, le=10**6, description="further runs of all finalists together, at most")
    confidence: float = Field(
        0.9,
        gt=0.5,
        lt=1,
        description="they end before when a finalist is the best with this probability",
    )


def _gpus(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (is_number and (value == 0 or _LEAST <= value <= _MOST_GPUS)):
        raise ValueError(f"must be auto, 0, or a number from {_LEAST} to {_MOST_GPUS}, got {shortened(repr(value))}")
    return value


class DeployConfig(Part):
    """How the chosen network is going to be run, and so how the efficiency of each is measured."""

    runtime: Literal["eager", "torch_compile", "onnxruntime", "pt2e"] = Field(
        description="what runs it: eager: PyTorch as it is; torch_compile: PyTorch's compiler; onnxruntime: an ONNX file; pt2e: "
        "PyTorch's compiler in int8. Timed from the bytes of an image to its class map"
    )
    precision: Literal["fp32", "bf16", "fp16", "int8"] = Field(
        "fp32", description="arithmetic of convolutions; not every runtime knows every one"
    )
    argmax: Literal["full", "quarter"] = Field(
        "full",
        description="where classes are decided: at the size of the image, or at a quarter of its sides, which is faster",
    )

    def __str__(self) -> str:
        coarse = ", argmax at a quarter" if self.argmax == "quarter" else ""
        return f"{self.runtime} in {self.precision}{coarse}"


class ResourcesConfig(Part):
    """What one trial occupies."""

    cpus: float = Field(default=1.0, ge=_LEAST, le=10_000, description="processor cores; fractions share one")
    gpus: Annotated[float | Literal["auto"], BeforeValidator(_gpus)] = Field(
        default=0.0,
        description="GPUs; fractions below 1 share one; auto: a probe finds how many trials a GPU holds and still gains from",
    )
    processes: int = Field(
        default=1, ge=1, le=1024, description="processes that train one trial together, each on a share of the batch"
    )
    custom: dict[str, Annotated[float, Field(ge=_LEAST, le=10**6)]] = Field(
        {}, description="other Ray resources that a node must have, e.g. {accelerator_type:A100: 0.01}"
    )
    watchdog_minutes: float = Field(
        default=60.0,
        gt=0,
        le=10**6,
        description="minutes without a report after which a trial is taken for hung",
    )
    outage_minutes: float = Field(
        default=30.0,
        gt=0,
        le=10**6,
        description="minutes without any success after which a sweep ends to be resumed (exit code 75) while its trials fail "
        "through no fault of their configurations: data, a disk, storage, nodes or devices are away; until then one trial is "
        "tried from time to time, and budget.hours goes on counting",
    )
    idle_wait_minutes: float = Field(
        default=1.0,
        ge=0,
        description="minutes that a start of the sweep waits, all architectures together, for nobody else to compute on the device "
        "where they are measured, if latency or fps decides something; measured in company they decide nothing until they were "
        "measured again",
    )

    @property
    def num_gpus(self) -> float:
        """GPUs of a trial; one as long as `auto` is not resolved."""
        return 1.0 if self.gpus == "auto" else self.gpus

    @property
    def threads(self) -> int:
        """Threads that a process of a trial computes with."""
        return max(1, int(self.cpus))

    @model_validator(mode="after")
    def _processes_fit(self) -> Self:
        if self.num_gpus and self.processes > 1 and self.gpus != self.processes:
            raise LocatedError(
                ("processes",), f"each process needs a GPU of its own: set gpus to {self.processes}, it is {self.gpus}"
            )
        return self

    @model_validator(mode="after")
    def _whole_beyond_one(self) -> Self:
        amounts: dict[Location, float] = {("cpus",): self.cpus, ("gpus",): self.num_gpus}
        amounts |= {("custom", name): value for name, value in self.custom.items()}
        for where, value in amounts.items():
            if value > 1 and not float(value).is_integer():
                raise LocatedError(where, f"must be whole beyond 1, got {value:g}")
        return self


def _registered_name(name: str) -> str:
    """Return a name that MLflow's model registry takes.

    Raises:
        ValueError: it does not.
    """
    has_dots = name == "." or name.startswith("..")
    if len(name) > _LONGEST_REGISTERED or not name.isprintable() or name != name.strip() or has_dots:
        raise ValueError(
            f"must be a name for MLflow's model registry: up to {_LONGEST_REGISTERED} printable characters, none of them / or :, "
            f"no space at its ends, and neither `.` nor `..` and more, got {name[:60]!r}"
        )
    return name


class TrackingConfig(Part):
    """Where experiment pages go."""

    uri: str | None = Field(
        default=None, min_length=1, description="MLflow server or store; unset: mlflow.db in the store folder"
    )
    experiment: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,  # of the column in MLflow's own database
        pattern=ONE_LINE,
        description="MLflow experiment; unset: the sweep's name",
    )
    register_as: Annotated[str, AfterValidator(_registered_name)] | None = Field(
        default=None,
        pattern=r"^[^/:]*[^/:\s][^/:]*$",
        description="name in MLflow's model registry, without / and :, under which the picked network is put at the end",
    )
    system_metrics: bool = Field(
        default=False, description="log load and memory of the workers' machines with each report"
    )
