"""Trials that wait long for a worker."""

import time

from sweeps.execution.cluster import describe_cluster
from sweeps.execution.coordinator import Coordinator

_SAY_AFTER = 60.0  # seconds without a worker after which that is said, and between two lines about it


class LongWaits:
    """Says which trials wait long: Tune waits in silence for resources that a cluster does not have any more."""

    def __init__(self, coordinator: Coordinator) -> None:
        """Begin with nobody waiting.

        Args:
            coordinator: of the sweep; it is given the lines.
        """
        self._coordinator = coordinator
        self._since: dict[tuple[int, int], float] = {}  # trial and attempt without a worker -> when that was seen first
        self._said: set[tuple[int, int]] = set()
        self._quiet_until = 0.0

    def poll(self) -> None:
        """Find out who waits, and say so where it is new."""
        now = time.monotonic()
        waiting = [(record.number, record.attempt) for record in self._coordinator.running if not record.worker]
        self._since = {attempt: self._since.get(attempt, now) for attempt in waiting}
        long = [attempt for attempt in waiting if now - self._since[attempt] > _SAY_AFTER]
        if now < self._quiet_until or self._said.issuperset(long):
            return
        self._said.update(long)
        self._quiet_until = now + _SAY_AFTER
        number, others = long[0][0], len(long) - 1
        who = f"trial {number} and {others} more have" if others else f"trial {number} has"
        longest = now - min(self._since.values())
        self._coordinator.note(f"{who} waited {longest:.0f} s for a worker; the cluster has {describe_cluster()}")
