"""Efficiency of an architecture on a device: measured alone, once, and remembered in the ledger.

Latency is a property of an architecture on a device, not of a trial: measured while other trials share the device it would be
noise. So every architecture that a sweep can reach is measured before its first trial starts, by one task that takes a whole
node (all its processors, one GPU), for batch 1 at the size that the sweep's images have. On a processor it computes with
as many threads as a trial has (`resources.cpus`). Where the sweep says how its network is going to be run (`deploy`), that is what
is measured: runtimes do not order networks alike.

Others than the sweep may compute there all the same. Then it waits a while (`resources.idle_wait_minutes`), and what is measured in
company at last is kept as doubtful: it decides nothing (`sweeps.metrics.is_doubtful`), and whoever needs it next measures again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch

from segda.config import NetworkConfig, TrainConfig
from segda.datasets import DATASETS
from segda.deployment.shipped import Argmax
from segda.device import PRECISIONS, Precision, resolve_device, resolve_precision
from segda.efficiency import profile_segmenter
from segda.efficiency.idleness import disturbance
from segda.environment import describe_guests, device_name
from segda.errors import ConfigError, SegdaError
from segda.models import ModelConfig, build_segmenter
from sweeps.file.fields import NETWORK_PREFIXES
from sweeps.file.parts import DeployConfig
from sweeps.file.spec import SweepSpec
from sweeps.ledger.database import Ledger
from sweeps.ledger.records import Device
from sweeps.metrics import TIMED, has_doubts
from sweeps.planning.machines import Call, here
from sweeps.planning.patience import Patience

# Raise it when what is measured changes: profiles of older versions are then measured again.
VERSION = 2


@dataclass(frozen=True)
class Architecture:
    """What decides the efficiency of a segmenter, apart from the device.

    Attributes:
        model: settings of the network; those about initial weights have their defaults.
        num_classes: channels of its output.
        height: of the input in pixels.
        width: of the input in pixels.
        precision: type that convolutions compute in; auto is resolved on the device.
        runtime: what runs it, a name in `segda.deployment.RUNTIMES`; None: PyTorch, up to its scores.
        argmax: where a runtime decides classes.
    """

    model: ModelConfig
    num_classes: int
    height: int
    width: int
    precision: Precision | Literal["int8"]
    runtime: str | None = None
    argmax: Argmax = "full"

    @classmethod
    def of(cls, config: TrainConfig, deploy: DeployConfig | None = None) -> "Architecture":
        """Return the architecture that a run trains, at the size of its images.

        Args:
            config: of the run.
            deploy: how the network is going to be run; None: as it is trained.
        """
        return cls(
            model=type(config.model).model_validate(config.model.architecture()),
            num_classes=len(DATASETS[config.data.source.dataset].classes),
            height=config.data.height,
            width=config.data.width,
            precision=config.precision if deploy is None else deploy.precision,
            runtime=None if deploy is None else deploy.runtime,
            argmax="full" if deploy is None else deploy.argmax,
        )

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the efficiency as plain data: of a network that is not ours, its code too."""
        guests = describe_guests(NetworkConfig(model=self.model))
        plain = asdict(self) | {"model": self.model.architecture()} | ({"guests": guests} if guests else {})
        if self.runtime is None:
            del plain["runtime"], plain["argmax"]
        return plain

    def __str__(self) -> str:
        return f"{self.model.label()} at {self.height}x{self.width}"


@dataclass(frozen=True)
class Profile:
    """What is known about an architecture on a device.

    Attributes:
        metrics: efficiency figures by name; empty if it cannot be built.
        error: why it cannot be built, one line.
        doubts: what speaks against its times, one line each, where they were measured just now.
        unchecked: what could not be looked at for that.
    """

    metrics: Mapping[str, float]
    error: str | None = None
    doubts: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def obstacle(self, spec: SweepSpec) -> str | None:
        """Return why the architecture must not be trained in a sweep, with values, or None."""
        return self.error or spec.broken_constraint(self.metrics)


def sample_config(spec: SweepSpec) -> TrainConfig:
    """Return some training configuration out of a sweep's space, for what all its trials have in common."""
    return spec.train_config(spec.space.first(next(spec.space.branches())), seed=spec.first_seed)


def reachable(spec: SweepSpec) -> list[Architecture]:
    """Return the architectures that the trials and references of a sweep can have, without repetition.

    Args:
        spec: the sweep.
    """
    # Networks are all that differs: image size and precision are the same for all (`sweeps.file.fields.FIXED_FIELDS`).
    chosen = [*spec.space.covering(*NETWORK_PREFIXES), *spec.references.values()]
    configs = [spec.train_config(params, seed=spec.first_seed) for params in chosen]
    return list(dict.fromkeys(Architecture.of(config, spec.deploy) for config in configs))


def profile_key(architecture: Architecture, device: Device) -> str:
    """Return the identity of a measurement, 16 hexadecimal digits.

    Args:
        architecture: what is measured.
        device: where.
    """
    # The processor's threads change what it reaches; a GPU's speed hardly depends on them.
    threads = device.threads if device.kind == "cpu" else None
    text = json.dumps([VERSION, architecture.identity(), device.kind, device.name, threads], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def infeasible(spec: SweepSpec, profiles: Mapping[Architecture, Profile]) -> dict[Architecture, str]:
    """Return the architectures that a sweep never trains, and why.

    Args:
        spec: the sweep.
        profiles: what is known about the architectures that it can reach; may be empty.

    Raises:
        ConfigError: none is left.
    """
    found = {item: why for item, profile in profiles.items() if (why := profile.obstacle(spec)) is not None}
    if profiles and len(found) == len(profiles):
        listed = "; ".join(f"{architecture}: {why}" for architecture, why in found.items())
        raise ConfigError(
            f"no architecture of sweep {spec.name!r} meets its constraints ({listed}); loosen them or search others"
        )
    return found


def device_of(spec: SweepSpec, look: Call, *, gpus: float) -> Device:
    """Describe the device that a sweep's architectures are measured on, with as many threads as a trial computes with.

    Args:
        spec: the sweep.
        look: calls a function that only looks, at once and on the machine that measures.
        gpus: of a trial.
    """
    device: Device = look(describe_device, "cuda" if gpus else "cpu", spec.resources.threads)
    return device


def describe_device(kind: str, threads: int) -> Device:
    """Describe the device that this process would measure on.

    Args:
        kind: `cpu` or `cuda`.
        threads: threads that a measurement may use.
    """
    return Device(kind=kind, name=device_name(resolve_device(kind)), threads=threads)


def measure(architecture: Architecture, device: Device, min_seconds: float = 0.0) -> Profile:
    """Measure an architecture with random weights; call it on a device that nothing else uses.

    Args:
        architecture: what to measure.
        device: where; must be this process's.
        min_seconds: how long to time it at least, see `segda.efficiency.measure_latency`.
    """
    torch.set_num_threads(device.threads)
    target = resolve_device(device.kind)
    try:
        segmenter = build_segmenter(architecture.model, num_classes=architecture.num_classes, pretrained=False)
        profile = profile_segmenter(
            segmenter,
            input_shape=(1, 3, architecture.height, architecture.width),
            device=target.type,
            precision=(
                architecture.precision
                if architecture.precision == "int8"
                else PRECISIONS[resolve_precision(architecture.precision, target)]
            ),
            runtime=architecture.runtime,
            argmax=architecture.argmax,
            min_seconds=min_seconds,
        )
    except SegdaError as error:
        what = "built" if architecture.runtime is None else f"run by {architecture.runtime}"
        return Profile({}, error=f"{architecture} cannot be {what}: {' '.join(str(error).split())}")
    return Profile(profile.metrics(), doubts=profile.latency.doubts, unchecked=profile.latency.unchecked)


def look(device: Device) -> tuple[str, ...]:
    """Return what would disturb a measurement now, one line each.

    Args:
        device: where; must be this process's.
    """
    return disturbance(resolve_device(device.kind))


def profile_all(
    architectures: Iterable[Architecture],
    *,
    device: Device,
    ledger: Ledger,
    patience: Patience,
    call: Call = here,
    again: bool = False,
) -> Iterator[tuple[Architecture, Profile]]:
    """Look architectures up in the ledger, and measure those that are not there or were measured in company.

    Args:
        architectures: what is needed.
        device: where to measure, see `device_of`.
        ledger: remembers the measurements; it need not know the sweep.
        patience: how long to wait for a machine where nobody else computes; with none a measurement is short, too.
        call: calls a function with arguments where no trial computes, and returns what it returns; not called if nothing is
            missing.
        again: whether to measure what is known, too.

    Yields:
        Each architecture and what is known about it, in order.
    """
    for architecture in architectures:
        key = profile_key(architecture, device)
        known = ledger.profile(key)
        if known is None or again or has_doubts(known):
            profile: Profile = patience.undisturbed(
                partial(call, measure, architecture, device, patience.min_seconds),
                doubts=lambda measured: measured.doubts,
                look=partial(call, look, device),
                what=str(architecture),
            )
            if profile.error is None:
                ledger.put_profile(key, profile.metrics)
        else:
            profile = Profile(known)
        yield architecture, profile


def renew_trials(spec: SweepSpec, profiles: Mapping[Architecture, Profile], *, ledger: Ledger) -> list[int]:
    """Give trials whose architecture was measured in company the figures that were measured alone since.

    Args:
        spec: the sweep.
        profiles: what is known about the architectures that it can reach.
        ledger: has its trials.

    Returns:
        Their numbers.
    """
    renewed = []
    for trial in ledger.trials(spec.name):
        if has_doubts(trial.profile):
            profile = profiles.get(Architecture.of(spec.train_config(trial.params, seed=trial.seed), spec.deploy))
            if profile is not None and profile.error is None and not has_doubts(profile.metrics):
                timed = {name: profile.metrics[name] for name in TIMED & profile.metrics.keys()}
                ledger.update_trial(spec.name, trial.number, profile={**trial.profile, **timed})
                renewed.append(trial.number)
    return renewed
