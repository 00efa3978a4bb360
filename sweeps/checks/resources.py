"""What a sweep file must hold for the machines that its trials ask for; each check raises `LocatedError` at the key to change."""

from collections.abc import Iterator

from segda.config import TrainConfig
from segda.config_problems import LocatedError, Location
from segda.errors import ConfigError
from segda.gradients import images_at_once
from segda.tunable import Scalar
from sweeps.file.prices import PROCESSOR, Prices, gpu_text, prices_of
from sweeps.file.space import Categorical, SearchSpace
from sweeps.file.spec import SweepSpec
from sweeps.ledger.records import Device
from sweeps.paths import value_at

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")
_BATCH = "batch_size"


def check_resources(spec: SweepSpec, space: SearchSpace, sample: TrainConfig) -> None:
    """Check what one trial occupies against what it computes.

    Args:
        spec: the sweep.
        space: its search space.
        sample: some training configuration of it.

    Raises:
        LocatedError: relative to the sweep file: a trial could not train with these resources, or would leave some idle.
    """
    for name in spec.resources.custom:
        if name in _RAYS_OWN:
            raise LocatedError(
                ("resources", "custom", name), "is no custom resource; say cpus and gpus, or leave it out"
            )
    _check_device(spec, sample)
    if spec.budget.gpu_hours is not None and not spec.resources.num_gpus:
        raise LocatedError(("budget", "gpu_hours"), "has no effect with resources.gpus 0; use hours, or leave it out")
    _check_prices(spec)
    for where, batch_size in _batch_sizes(spec, space):
        config = TrainConfig.model_validate(sample.model_dump() | {_BATCH: batch_size})
        try:
            images_at_once(config, micro_batch=None, processes=spec.resources.processes)
        except ConfigError as error:
            raise LocatedError(where, str(error)) from error


def _check_device(spec: SweepSpec, sample: TrainConfig) -> None:
    device, gpus = sample.device, spec.resources.gpus
    if device.startswith("cuda:"):
        raise LocatedError(
            ("base", "device"),
            f"must have no number in a sweep, got {device!r}: Ray gives each trial its GPUs; use cuda",
        )
    if device not in ("auto", "cpu", "cuda"):
        raise LocatedError(("base", "device"), f"must be auto, cpu or cuda, got {device!r}")
    if device == "cpu" and gpus:
        raise LocatedError(
            ("resources", "gpus"),
            f"must be 0 with base.device cpu, got {gpus}, which would lie idle; leave it out, or use device: auto",
        )
    if device == "cuda" and not gpus:
        raise LocatedError(
            ("base", "device"),
            "cuda needs resources.gpus, which is 0; set it to 1, a fraction or auto, or use device: auto",
        )
    if sample.precision == "fp16" and not gpus:
        raise LocatedError(
            ("base", "precision"), "fp16 needs a GPU, and resources.gpus is 0; set that, or use bf16, fp32 or auto"
        )


def _check_prices(spec: SweepSpec) -> None:
    budget = spec.budget
    if not budget.price_per_hour:
        for field in ("cost", "currency"):
            if getattr(budget, field) is not None:
                raise LocatedError(
                    ("budget", field), "needs prices; add e.g. `price_per_hour: {A100: 2.5, cpu: 0.1}` under budget"
                )
        return
    prices = Prices(budget.price_per_hour, tuple(spec.resources.custom))
    # Which GPU it will be shows where trials run (`check_price`); that it is none, or one of them, is known here.
    if not spec.resources.num_gpus and prices.of(PROCESSOR) is None:
        raise LocatedError(
            ("budget", "price_per_hour"),
            f"has no price for {PROCESSOR}, on which all trials compute (resources.gpus is 0); add e.g. `{PROCESSOR}: 0.1`",
        )
    if spec.resources.num_gpus and all(name.lower() == PROCESSOR for name in budget.price_per_hour):
        raise LocatedError(
            ("budget", "price_per_hour"), "has no price for a GPU, on which all trials compute; add e.g. `A100: 2.5`"
        )


def check_price(spec: SweepSpec, device: Device) -> None:
    """Refuse a sweep with prices of which none is that of the device where its trials compute.

    Raises:
        ConfigError: names the device.
    """
    prices = prices_of(spec, gpus=0.0)
    on_processor = device.kind == "cpu"
    if prices is not None and prices.of(PROCESSOR if on_processor else gpu_text(device.name)) is None:
        name = PROCESSOR if on_processor else device.name
        raise ConfigError(
            f"budget.price_per_hour of sweep {spec.name!r} has no price for {name}, on which its trials compute, only for "
            f"{', '.join(prices.per_hour)}; add e.g. `{name}: 1.0`"
        )


def _batch_sizes(spec: SweepSpec, space: SearchSpace) -> Iterator[tuple[Location, Scalar]]:
    """Yield every batch size that a trial can have, and the key that decides it."""
    searched = next((item for item in space.parameters if item.path == _BATCH), None)
    if searched is None or searched.condition:
        default = TrainConfig.model_fields[_BATCH].default
        yield ("resources", "processes"), value_at(spec.base, _BATCH, default)
    if searched is not None:
        is_listed = isinstance(searched.distribution, Categorical)
        for index, value in enumerate(searched.distribution.values() or ()):
            yield ("search", _BATCH, *(("choices", index) if is_listed else ())), value
    for name, params in spec.references.items():
        if _BATCH in params:
            yield ("references", name, _BATCH), params[_BATCH]
