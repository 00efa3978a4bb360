"""The machines that a sweep will run on, as far as planning needs to know them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from segda.errors import DeviceError
from sweeps.file.spec import ResourcesConfig, SweepSpec
from sweeps.ledger.records import Allotment

_ROUNDING = 1e-6  # 1 / 0.3333 and 3 / 0.3 are whole numbers of trials

Call = Callable[..., Any]


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in this process; a cluster has its own way to call."""
    return function(*arguments)


def stated(spec: SweepSpec) -> Allotment:
    """Return what a sweep file itself gives its trials; `gpus: auto` counts as one GPU.

    Args:
        spec: the sweep.
    """
    return Allotment(gpus=spec.resources.num_gpus, concurrency=spec.budget.concurrency)


def request_of(resources: ResourcesConfig, *, gpus: float) -> dict[str, float]:
    """Return what a trial asks of one node, under Ray's names.

    Args:
        resources: of the sweep file.
        gpus: of a trial, in place of what the file says.
    """
    request = {"CPU": resources.cpus, "GPU": gpus, **resources.custom}
    return {name: amount for name, amount in request.items() if amount}


@dataclass(frozen=True)
class Machines:
    """Where trials will run.

    Attributes:
        nodes: what each node has, under Ray's names: `CPU`, `GPU` and custom resources.
        call: calls a function with arguments where nothing else computes, on a GPU if trials have one.
        look: calls a function that only looks, at once and on the same machine, whatever else computes there.
    """

    nodes: tuple[Mapping[str, float], ...]
    call: Call = here
    look: Call = here

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(node.get("GPU", 0.0) for node in self.nodes))

    def slots(self, spec: SweepSpec, *, gpus: float) -> int:
        """Return how many trials of a sweep fit at the same time.

        Args:
            spec: the sweep.
            gpus: of a trial.

        Raises:
            DeviceError: not even one fits.
        """
        wanted = request_of(spec.resources, gpus=gpus)
        slots = sum(
            min(_times(node.get(name, 0.0), amount, whole=name == "GPU") for name, amount in wanted.items())
            for node in self.nodes
        )
        if slots == 0:
            asked = " and ".join(f"{amount:g} {_plural(name)}" for name, amount in wanted.items())
            listed = ", ".join(
                " and ".join(
                    f"{node.get(name, 0.0):g} {_plural(name)}" for name in dict.fromkeys(["CPU", "GPU", *wanted])
                )
                for node in self.nodes
            )
            raise DeviceError(
                f"a trial needs {asked} on one node, the nodes have: {listed or 'none'}; change `resources` in the sweep file, "
                "or name a cluster with --address"
            )
        return slots

    def concurrency(self, spec: SweepSpec, *, gpus: float) -> int:
        """Return how many trials of a sweep run at the same time whose file says `gpus: auto`: as many as fit.

        A `budget.concurrency` of 2 or more remains a bound; 1, its default, does not. A sweep that went through the ledger has
        every field set: what the file left out cannot be told from its default.

        Args:
            spec: the sweep.
            gpus: of a trial, as was found.

        Raises:
            DeviceError: not even one fits.
        """
        slots = self.slots(spec, gpus=gpus)
        return min(slots, spec.budget.concurrency) if spec.budget.concurrency > 1 else slots


def _times(available: float, amount: float, *, whole: bool) -> int:
    """Return how often an amount is there; with `whole` a share below 1 lies on one unit, it never spans two."""
    if whole and amount < 1:
        return int(available) * int(1 / amount + _ROUNDING)
    return int(available / amount + _ROUNDING)


def _plural(name: str) -> str:
    return f"{name}s" if name in ("CPU", "GPU") else name


def this_machine() -> Machines:
    """Return the machine of this process alone."""
    return Machines(nodes=({"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())},))
