"""The machines that a sweep will run on, as far as planning needs to know them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from segda.errors import DeviceError
from sweeps.spec import SweepSpec

Call = Callable[..., Any]


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in this process; a cluster has its own way to call."""
    return function(*arguments)


@dataclass(frozen=True)
class Machines:
    """Where trials will run.

    Attributes:
        nodes: processors and GPUs of each node.
        call: calls a function with arguments where nothing else computes, on a GPU if trials have one.
    """

    nodes: tuple[tuple[float, float], ...]
    call: Call = here

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(gpus for _, gpus in self.nodes))

    def slots(self, spec: SweepSpec) -> int:
        """Return how many trials of a sweep fit at the same time.

        Args:
            spec: the sweep.

        Raises:
            DeviceError: not even one fits.
        """
        wanted = spec.resources
        slots = sum(
            min(int(cpus / wanted.cpus), int(gpus / wanted.num_gpus) if wanted.num_gpus else int(cpus / wanted.cpus))
            for cpus, gpus in self.nodes
        )
        if slots == 0:
            listed = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in self.nodes) or "none"
            raise DeviceError(
                f"a trial needs {wanted.cpus:g} CPUs and {wanted.num_gpus:g} GPUs on one node, the nodes have: {listed}; change "
                "`resources` in the sweep file, or name a cluster with --address"
            )
        return slots


def this_machine() -> Machines:
    """Return the machine of this process alone."""
    return Machines(nodes=((float(os.cpu_count() or 1), float(torch.cuda.device_count())),))
