"""Complete, atomic checkpoints: a run that stops at any moment continues as if it had not.

A checkpoint is one file of tensors and plain data, readable with `torch.load(weights_only=True)`: method (segmenter,
discriminators, everything that is a module), optimizers, gradient scaler, random states, step, the history of reports, what was
logged since the last one, the round that goes on, which weights are pruned, and the configuration as JSON. Loaders and a method's
draws need no state beyond the step: the sample of a step, and what is drawn for it, is a function of seed and step.
"""

import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Json, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from segda.compression.pruning import Masks
from segda.config import TrainConfig
from segda.config_problems import validated
from segda.datasets import DATASETS
from segda.device_errors import is_device_failure, is_out_of_memory
from segda.errors import DamagedCheckpointError, WeightsError
from segda.files import expanded, replacing
from segda.models import Segmenter, build_segmenter
from segda.torch_files import misfits, read_torch_file, verify_torch_file

FORMAT = 4
_SEGMENTER = "segmenter."  # begins the names of its tensors among those of a method

log = logging.getLogger(__name__)


@dataclass
class Interval:
    """What was logged since the last report.

    Attributes:
        steps: updates since then.
        seconds: time spent on them.
        sums: name -> sum of what the method logged, scalars on the run's device.
        counts: name -> steps in which it was logged; a method in stages does not log all in all of them.
    """

    steps: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, logs: Mapping[str, Tensor]) -> None:
        """Count one more step."""
        self.steps += 1
        for name, value in logs.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def to(self, device: torch.device) -> "Interval":
        """Return the same with its scalars on a device."""
        sums = {name: value.to(device) for name, value in self.sums.items()}
        return Interval(self.steps, self.seconds, sums, self.counts)


class Kept(NamedTuple):
    """What a checkpoint holds beside the state of modules and optimizers; see `save_checkpoint`."""

    step: int
    seconds: float
    history: list[dict[str, Any]]
    interval: Interval
    round: tuple[int, str] | None
    masks: Masks


class _Part(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)


class _Report(_Part):
    step: int
    metrics: dict[str, float]


class _Random(_Part):
    cpu: Tensor
    cuda: list[Tensor]


class _Interval(_Part):
    steps: int
    seconds: float
    sums: dict[str, Tensor]
    counts: dict[str, int]


class _Content(_Part):
    """What `save_checkpoint` writes."""

    config: Json[dict[str, Any]]
    step: int
    seconds: float
    datasets: tuple[str, str]
    classes: tuple[str, ...]
    method: dict[str, Any]
    optimizers: dict[str, dict[str, Any]]
    scaler: dict[str, Any]
    random: _Random
    history: Json[list[_Report]]
    interval: _Interval
    round: tuple[int, str] | None
    masks: dict[str, dict[str, Tensor]] = {}  # those of before know no pruning


def save_checkpoint(
    path: Path,
    *,
    config: TrainConfig,
    step: int,
    seconds: float,
    method: nn.Module,
    optimizers: Mapping[str, Optimizer],
    scaler: torch.amp.GradScaler,
    history: Sequence[Mapping[str, Any]],
    interval: Interval,
    round: tuple[int, str] | None,
    masks: Masks,
) -> None:
    """Write everything that the run needs to go on from `step`.

    Args:
        path: the file to replace.
        config: the run's configuration.
        step: updates made so far.
        seconds: time spent on them.
        method: the method with all its modules.
        optimizers: parameter group -> optimizer.
        scaler: gradient scaler, enabled or not.
        history: reports so far: step, time, metrics.
        interval: what was logged since the last one.
        round: number and digest of the round that goes on, or None (`segda.rounds`).
        masks: part -> name of a weight -> where it is pruned (`segda.compression.pruning`); empty if nothing is.
    """
    device = _device(method)
    state = {
        "format": FORMAT,
        "config": config.model_dump_json(),
        "datasets": list(config.data.identities),
        "classes": list(_classes_of(config)),
        "step": step,
        "seconds": seconds,
        "method": method.state_dict(),
        "optimizers": {group: optimizer.state_dict() for group, optimizer in optimizers.items()},
        "scaler": scaler.state_dict(),
        "random": {
            "cpu": torch.get_rng_state(),
            # Of the run's own GPU: a look at another one would take some of its memory.
            "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        },
        "history": json.dumps(list(history)),
        "interval": vars(interval),
        "round": round,
        "masks": masks,
    }
    # Whoever is told of the step relies on it: a loss of power must not leave less.
    with replacing(path, durable=True) as temporary:
        torch.save(state, temporary)


def verify_checkpoint(path: Path) -> None:
    """Compare the bytes of a checkpoint with the checksums that were written with them; what they say is not looked at.

    Args:
        path: a file that `save_checkpoint` wrote.

    Raises:
        DamagedCheckpointError: the file has lost or changed content.
        WeightsError: it is missing or cannot be opened.
    """
    with _errors_of(path):
        verify_torch_file(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, once its bytes are seen to be those that were written.

    Args:
        path: a file that `save_checkpoint` wrote.

    Returns:
        The state by name.

    Raises:
        DamagedCheckpointError: the file has lost or changed content, or is not a checkpoint of this version of the library.
        WeightsError: it is missing or cannot be opened.
    """
    with _errors_of(path):
        state = read_torch_file(path)
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise DamagedCheckpointError(f"{path} is not a checkpoint of segda: expected a file written by `segda train`")
    if state["format"] != FORMAT:
        raise DamagedCheckpointError(
            f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}; train again"
        )
    try:
        _Content.model_validate(state)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedCheckpointError(
            f"{path} is not what `segda train` writes ({place}: {first['msg']}); delete it to train again"
        ) from None
    return state


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise WeightsError(f"no checkpoint at {path}; `segda train` writes checkpoint.pt into its run folder") from None
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{path} cannot be read ({reason}); see to the disk or the permissions") from None
    except ValueError as error:
        raise DamagedCheckpointError(
            f"{path} cannot be read as a checkpoint ({error}); delete it to train again"
        ) from None


def restore_checkpoint(
    state: Mapping[str, Any],
    *,
    config: TrainConfig,
    method: nn.Module,
    optimizers: Mapping[str, Optimizer],
    scaler: torch.amp.GradScaler,
) -> Kept:
    """Put a checkpoint's state into freshly built parts.

    Args:
        state: what `read_checkpoint` returned.
        config: the configuration of the run that continues.
        method: receives its weights.
        optimizers: receive their moments.
        scaler: receives its scale.

    Returns:
        The rest of it.

    Raises:
        WeightsError: if the checkpoint belongs to another configuration.
        DamagedCheckpointError: if it holds something else than what is to be restored.
    """
    where = "the checkpoint of the run folder"
    written = _config_of(state, where)
    if written.fingerprint() != config.fingerprint():
        raise WeightsError(
            f"the run folder holds a checkpoint of another configuration ({written.fingerprint()}, now {config.fingerprint()}); "
            "use another folder or delete this one"
        )
    for before, now in zip(state["datasets"], config.data.identities, strict=True):
        if before != now:
            raise WeightsError(
                f"the run folder holds a checkpoint of a data set that was described in another way ({before}, now {now}); "
                "use another folder or delete this one"
            )
    if not 0 <= state["step"] <= config.steps:
        raise DamagedCheckpointError(
            f"{where} is at step {state['step']}, which a run of {config.steps} has not; delete it to train again"
        )
    problems = misfits(state["method"], method.state_dict(), of="this method", are_finite=False)
    if problems:
        raise DamagedCheckpointError(f"{where} does not fit its configuration: {problems}; delete it to train again")
    try:
        return _restored(state, method=method, optimizers=optimizers, scaler=scaler)
    # Content that no run has written makes those who restore it raise nearly anything.
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error) or is_device_failure(error):
            raise  # which says nothing about the checkpoint
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpointError(
            f"{where} has no state to go on from ({type(error).__name__}: {reason}); delete it to train again"
        ) from None


def _restored(
    state: Mapping[str, Any],
    *,
    method: nn.Module,
    optimizers: Mapping[str, Optimizer],
    scaler: torch.amp.GradScaler,
) -> Kept:
    method.load_state_dict(state["method"])
    for group, optimizer in optimizers.items():
        built = optimizer.param_groups
        optimizer.load_state_dict(state["optimizers"][group])
        _check_settings(optimizer, built, group)
        _check_moments(optimizer, group)
    scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"]["cpu"])
    device = _device(method)
    if device.type == "cuda" and state["random"]["cuda"]:
        torch.cuda.set_rng_state(state["random"]["cuda"][0], device)
    return Kept(
        step=state["step"],
        seconds=state["seconds"],
        history=json.loads(state["history"]),
        interval=Interval(**state["interval"]),
        round=state["round"],
        masks=state.get("masks", {}),
    )


def _check_settings(optimizer: Optimizer, built: Sequence[Mapping[str, Any]], group: str) -> None:
    for kept, own in zip(optimizer.param_groups, built, strict=True):
        for name, value in own.items():
            if isinstance(value, float) and not (isinstance(kept.get(name), float | int) and math.isfinite(kept[name])):
                raise ValueError(f"{name} of {group} is no number")


def _check_moments(optimizer: Optimizer, group: str) -> None:
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(
                    f"{name} of {group} has shape {list(value.shape)}, its parameter {list(parameter.shape)}"
                )


def _device(method: nn.Module) -> torch.device:
    return next(method.parameters()).device


def _config_of(state: Mapping[str, Any], where: str) -> TrainConfig:
    return validated(TrainConfig, json.loads(state["config"]), where=where)


def _classes_of(config: TrainConfig) -> tuple[str, ...]:
    return DATASETS[config.data.source.dataset].classes


def _check_meaning(path: Path, state: Mapping[str, Any], config: TrainConfig) -> None:
    """Refuse a network whose outputs are called otherwise by now, and tell of what else a description says otherwise."""
    learned, now = tuple(state["classes"]), _classes_of(config)
    name = config.data.source.dataset
    if learned != now:
        raise WeightsError(
            f"{path} was trained for the classes {', '.join(learned)}, and {name} has {', '.join(now)} now; bring back what it "
            "said then, or train again"
        )
    for before, identity in zip(state["datasets"], config.data.identities, strict=True):
        if before != identity:
            log.warning("%s was trained when %s was described in another way (%s)", path, identity, before)
            return


def network_checkpoint(state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bytes:
    """Return the content of a checkpoint that holds a network alone, with other weights; `load_segmenter` reads it.

    No training goes on from it: what optimizers, discriminators and teachers were belongs to the weights of before.

    Args:
        state: what `read_checkpoint` returned.
        weights: of the segmenter, by name.
    """
    content = io.BytesIO()
    method = {f"{_SEGMENTER}{name}": weight for name, weight in weights.items()}
    torch.save({**state, "method": method, "optimizers": {}, "scaler": {}, "masks": {}}, content)
    return content.getvalue()


def load_segmenter(path: Path | str) -> tuple[Segmenter, TrainConfig]:
    """Read the trained segmenter out of a checkpoint.

    Args:
        path: a file that `segda train` wrote.

    Returns:
        The segmenter on the CPU in evaluation mode, and the configuration that it was trained with.

    Raises:
        WeightsError: if the file is missing, damaged or not a checkpoint of this library, or if its weights are not those of the
            network that it names, or are no numbers, or if the classes of its data set have changed since.
        ConfigError: if something that it names cannot be had here: a network, method or data set from outside this package must
            be importable, see `segda.guests`.
    """
    path = expanded(path)
    state = read_checkpoint(path)
    config = _config_of(state, str(path))
    _check_meaning(path, state, config)
    num_classes = len(_classes_of(config))
    segmenter = build_segmenter(config.model, num_classes=num_classes, pretrained=False)
    method = state["method"]
    weights = {key.removeprefix(_SEGMENTER): value for key, value in method.items() if key.startswith(_SEGMENTER)}
    problems = misfits(weights, segmenter.state_dict(), of="this network", are_finite=True)
    if problems:
        raise WeightsError(f"{path} does not fit {config.model.label()} with {num_classes} classes: {problems}")
    segmenter.load_state_dict(weights)
    return segmenter.eval(), config
