"""How many trials of a sweep may be open at once while nodes come and go."""

import time

from segda.errors import DeviceError
from sweeps.execution.cluster import describe_cluster, machines_now
from sweeps.execution.coordinator import Coordinator
from sweeps.ledger.records import Allotment

_POLL_SECONDS = 5.0  # between two polls of the cluster


class Capacity:
    """Capacity for a sweep with `gpus: auto`: as many trials as fit on the nodes that are there, whenever they came.

    A sweep that names its GPUs keeps the number that it names. A reproducible one keeps what it began with: its proposals depend
    on it.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        """Begin with the capacity that the coordinator has.

        Args:
            coordinator: of the sweep.
        """
        self._coordinator = coordinator
        self._spec, self._gpus = coordinator.spec, coordinator.allotment.gpus
        is_packed = self._spec.resources.gpus == "auto" and self._gpus > 0
        self._is_elastic = is_packed and not self._spec.sampler.reproducible
        self._largest = coordinator.concurrency
        self._polled = time.monotonic()

    def poll(self) -> None:
        """Poll the cluster, unless that was done just now, and tell the coordinator what fits."""
        now = time.monotonic()
        if not self._is_elastic or now - self._polled < _POLL_SECONDS:
            return
        self._polled = now
        try:
            concurrency = machines_now().concurrency(self._spec, gpus=self._gpus)
        except DeviceError:
            return  # the nodes are away; the trials that wait for them are enough
        if concurrency == self._coordinator.concurrency:
            return
        self._coordinator.concurrency = concurrency
        self._coordinator.note(
            f"{concurrency} trials at the same time from now on; the cluster has {describe_cluster()}"
        )
        if concurrency > self._largest:
            self._largest = concurrency
            found = Allotment(gpus=self._gpus, concurrency=concurrency)
            self._coordinator.ledger.update_info(self._spec.name, allotment=found)


def say_idle_gpus(coordinator: Coordinator) -> None:
    """Tell of GPUs that a sweep which names its GPUs leaves idle.

    Args:
        coordinator: of the sweep.
    """
    gpus = coordinator.allotment.gpus
    if not gpus:
        return
    try:
        slots = machines_now().slots(coordinator.spec, gpus=gpus)
    except DeviceError:
        return  # the nodes have left just now
    if slots > coordinator.concurrency:
        coordinator.note(
            f"budget.concurrency is {coordinator.concurrency}, and {slots} trials fit on the GPUs that are there; raise it, or say "
            "`gpus: auto` under resources"
        )
