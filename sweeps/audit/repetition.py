"""What a training reported, against what the same training reported before."""

import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from sweeps.findings import TIMES
from sweeps.tracking.limits import key_name

# What the machine did meanwhile.
UNCOMPARED_PREFIXES = ("system/", "profile/")


@dataclass(frozen=True)
class Difference:
    """A figure that did not come out again.

    Attributes:
        step: of the report.
        metric: name as MLflow spells it.
        recorded: what the run says.
        again: what came out now; None if it was not reported.
    """

    step: int
    metric: str
    recorded: float
    again: float | None

    @property
    def amount(self) -> float:
        """How far apart they are; infinite if one is missing or not a number."""
        apart = math.inf if self.again is None else abs(self.again - self.recorded)
        return math.inf if math.isnan(apart) else apart

    def exceeds(self, tolerance: float) -> bool:
        """Return whether they are further apart than a tolerance, absolute up to values of 1 and relative above."""
        return self.amount > tolerance * max(1.0, abs(self.recorded))


@dataclass
class Comparison:
    """The reports of a run against those of its repetition.

    Attributes:
        tolerance: largest difference that is allowed; 0: none at all.
        num_reports: reports compared so far.
        num_figures: figures compared so far.
        differences: figures that differ at all, by step and name.
        recorded_weights: digest of the weights in the run's checkpoint, if it has one of the last report.
        weights: digest of the weights now.
    """

    tolerance: float
    num_reports: int = 0
    num_figures: int = 0
    differences: list[Difference] = field(default_factory=list)
    recorded_weights: str | None = None
    weights: str | None = None

    def add(self, step: int, *, recorded: Mapping[str, float], again: Mapping[str, float]) -> None:
        """Compare one report.

        Args:
            step: of the report.
            recorded: what the run says, by MLflow's names.
            again: what came out now, by our names; figures that the run does not have are left out.
        """
        found = {key_name(name): _as_kept(value) for name, value in again.items()}
        self.num_reports += 1
        for name in sorted(recorded):
            if not is_compared(name):
                continue
            self.num_figures += 1
            old, new = _as_kept(recorded[name]), found.get(name)
            is_same = new is not None and (old == new or (math.isnan(old) and math.isnan(new)))
            if not is_same:
                self.differences.append(Difference(step, name, old, new))

    @property
    def first(self) -> Difference | None:
        """The first difference beyond the tolerance."""
        return next((item for item in self.differences if item.exceeds(self.tolerance)), None)

    @property
    def largest(self) -> Difference | None:
        """The largest difference, within the tolerance or not."""
        return max(self.differences, key=lambda item: item.amount, default=None)

    @property
    def holds(self) -> bool:
        """Whether the run was reproduced: no figure beyond the tolerance and, if there is none, the same weights."""
        same_weights = self.recorded_weights is None or self.tolerance > 0 or self.weights == self.recorded_weights
        return self.first is None and same_weights


def is_compared(name: str) -> bool:
    """Return whether a metric is a result of the training; times and the machine's figures are not.

    Example:
        >>> is_compared("train/loss_seg"), is_compared("train/seconds_per_step"), is_compared("system/gpu_memory")
        (True, False, False)
    """
    return name not in TIMES and not name.startswith(UNCOMPARED_PREFIXES)


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return a hash over all tensors of a module's state, by name: 64 hexadecimal digits.

    Args:
        state: name -> tensor on any device, or plain data.

    Example:
        >>> first = {"a": torch.zeros(2), "b": torch.ones(1)}
        >>> weights_digest(first) == weights_digest({"b": torch.ones(1), "a": torch.zeros(2)})
        True
        >>> weights_digest(first) == weights_digest({"a": torch.zeros(2), "b": torch.ones(1) + 1e-7})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def _as_kept(value: float) -> float:
    """Return a figure as MLflow's databases keep it: the largest number stands for infinity."""
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value
